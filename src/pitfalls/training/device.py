"""What a run computes on, decided before it is identified: device, precision, threads."""

from pathlib import Path

import torch

BF16_CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""CPU features (x86 and Arm) with bf16 products in hardware; elsewhere bf16 is emulated, slower than fp32."""


def resolve_device(name: str) -> torch.device:
    """The device that a config asks for; auto takes CUDA where there is one.

    Raises:
        ValueError: cuda was asked for and is not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("training.device=cuda: torch sees no CUDA device; use training.device=cpu or auto")
    return torch.device(name)


def resolve_precision(name: str, device: torch.device) -> str:
    """bf16 or fp32; auto takes bf16 where the device multiplies it in hardware."""
    if name != "auto":
        return name
    in_hardware = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bf16()
    return "bf16" if in_hardware else "fp32"


def _cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    if not cpuinfo.exists():
        return False
    lines = (line for line in cpuinfo.read_text().splitlines() if line.startswith(("flags", "Features")))
    return bool(BF16_CPU_FLAGS & set(next(lines, "").split()))
