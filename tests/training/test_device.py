"""Device and precision are decided before a run gets its name. There is no CUDA here, so torch's answers are replaced."""

import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from pitfalls.schemas import ConfigError
from pitfalls.training import device


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu sse2 avx2 avx512f avx512_bf16", True),
        ("fpu avx512f amx_bf16 amx_tile", True),
        ("fpu sse2 avx2 avx512f", False),
        ("", False),
    ],
)
def test_bf16_is_taken_from_the_cpu_flags(tmp_path, flags, expected):
    """Guards against torch's own answer, which is yes also on CPUs that emulate bf16, at a third of the speed of fp32."""
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor : 0\nflags\t\t: {flags}\nbugs : x\n")
    assert device._cpu_has_bf16(path) is expected


def test_arm_and_systems_without_cpuinfo(tmp_path):
    (tmp_path / "arm").write_text("processor : 0\nFeatures\t: fp asimd bf16 i8mm\n")
    assert device._cpu_has_bf16(tmp_path / "arm")
    assert not device._cpu_has_bf16(tmp_path / "nothing")


def test_auto_takes_cuda_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert device.resolve_device("auto").type == "cuda"
    assert device.resolve_device("cpu").type == "cpu"
    assert device.resolve_precision("auto", torch.device("cuda")) == "bf16"
    assert device.resolve_precision("fp32", torch.device("cuda")) == "fp32"


def test_a_gpu_that_emulates_bf16_trains_in_fp32(monkeypatch):
    """Guards against torch's answer by default, which is yes also for GPUs before Ampere: they have no such products."""
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda device: True)
    for major, expected in ((7, "fp32"), (8, "bf16")):
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, major=major: SimpleNamespace(major=major))
        assert device.resolve_precision("auto", torch.device("cuda")) == expected


def test_asking_for_absent_cuda_says_what_to_do(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.resolve_device("auto").type == "cpu"
    with pytest.raises(ConfigError, match="use training.device=cpu or auto"):
        device.resolve_device("cuda")


FAULTS = """
import ctypes, resource
from pitfalls.training import device
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes, libc.memset.argtypes = [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
def faults(size=48 << 20):  # more than glibc ever keeps by itself
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        blocks = [libc.malloc(size) for _ in range(3)]
        for block in blocks: libc.memset(block, 1, size)
        for block in blocks: libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
usual = faults()
device.prepare_process(1)
faults()
kept = faults()
device.hand_back_memory()
print(usual, kept, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept_until_it_is_handed_back():
    """It runs in a process of its own, whose memory settings it changes. Every page that the system clears again is a fault."""
    output = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True).stdout
    usual, kept, handed_back = map(int, output.split())
    assert usual > 10_000
    assert kept < 100
    assert handed_back > 10_000
