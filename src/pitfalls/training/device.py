"""Device and precision of a run (decided before it gets its name), and threads and memory of its process."""

import ctypes
from contextlib import suppress
from pathlib import Path

import torch

from pitfalls.schemas import ConfigError, TrainingConfig

BF16_CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""CPU features (x86 and Arm) that multiply bf16 in hardware. Other CPUs emulate bf16, slower than fp32."""


def resolve_device(name: str) -> torch.device:
    """Return the device of a config. ``auto`` is CUDA if torch sees a device, or else the CPU.

    Raises:
        ConfigError: the config asks for cuda and torch sees none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("training.device=cuda: torch sees no CUDA device; use training.device=cpu or auto")
    return torch.device(name)


def resolve_precision(name: str, device: torch.device) -> str:
    """Return the precision of a config. ``auto`` is bf16 if the device multiplies it in hardware, or else fp32."""
    if name != "auto":
        return name
    return "bf16" if multiplies_bf16(device) else "fp32"


def autocast(config: TrainingConfig) -> torch.autocast:
    """Return the context in which a run trains and evaluates: bf16 autocast, or one that does nothing for fp32.

    Args:
        config: a config with a concrete device and precision.
    """
    return torch.autocast(config.device, torch.bfloat16, enabled=config.precision == "bf16")


def multiplies_bf16(device: torch.device) -> bool:
    """Return whether the device multiplies bf16 in hardware."""
    return torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else _cpu_has_bf16()


def _cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    if not cpuinfo.exists():
        return False
    lines = (line for line in cpuinfo.read_text().splitlines() if line.startswith(("flags", "Features")))
    return bool(BF16_CPU_FLAGS & set(next(lines, "").split()))


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Options of glibc's ``mallopt``."""


def prepare_process(n_threads: int) -> None:
    """Set torch's number of threads, and keep freed memory in the process for later use.

    Each step allocates the memory that the last one freed. glibc gives large blocks back to the system, which then has to clear
    every page again. That takes a sixth of a step on the CPU (docs/lab_notes/2026-11.md). Other C libraries are left alone.
    """
    torch.set_num_threads(n_threads)
    with suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)


def hand_back_memory() -> None:
    """Give freed memory back to the system (glibc)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
