"""What the machine can do: the references that shares of a peak are taken of."""

import torch

from pitfalls.benchmark.lines import Measure, per_second
from pitfalls.training.device import resolve_device

N_FLOATS = 1 << 26
"""256 MB in fp32: no cache holds it."""
DEVICE = resolve_device("auto")
"""Where a config trains that names no device."""


def matmul_peak(dtype: torch.dtype) -> Measure:
    """GFLOP/s of a large matrix product."""
    a, b = (torch.randn(shape).to(DEVICE, dtype) for shape in ((4096, 1024), (1024, 2048)))
    return lambda: [per_second(2 * 4096 * 1024 * 2048 / 1e9, lambda: a @ b) for _ in range(3)][1:]


def bandwidth() -> Measure:
    """GB/s of a copy in memory, read and written bytes together."""

    def measured() -> list[float]:
        source = torch.ones(N_FLOATS, device=DEVICE)
        target = torch.empty_like(source)
        return [per_second(2 * 4 * N_FLOATS / 1e9, lambda: target.copy_(source)) for _ in range(4)][1:]

    return measured
