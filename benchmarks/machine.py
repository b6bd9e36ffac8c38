"""What the machine can do: the references that shares of a peak are taken of."""

import torch

from benchmarks.timing import Measure, per_second
from pitfalls.training.device import resolve_device

N_FLOATS = 1 << 26
"""256 MB in fp32: no cache holds it."""
DEVICE = resolve_device("auto")
"""Where a config trains that names no device."""
PRODUCT, N_PRODUCTS = ((8192, 8192, 8192), 20) if DEVICE.type == "cuda" else ((4096, 1024, 2048), 1)
"""Rows, inner size and columns of the product, and how many are waited for at once: enough to keep the device busy."""
N_TIMES = 9


def matmul_peak(dtype: torch.dtype) -> Measure:
    """GFLOP/s of a large matrix product; the first is left out, and what is left is a peak: the fastest of a round counts."""
    n, inner, m = PRODUCT
    a, b = (torch.randn(shape).to(DEVICE, dtype) for shape in ((n, inner), (inner, m)))

    def products() -> None:
        for _ in range(N_PRODUCTS):
            a @ b

    flop = N_PRODUCTS * 2 * n * inner * m
    return lambda: [max([per_second(flop / 1e9, products) for _ in range(N_TIMES)][1:])]


def bandwidth() -> Measure:
    """GB/s of a copy in memory, read and written bytes together."""

    def measured() -> list[float]:
        source = torch.ones(N_FLOATS, device=DEVICE)
        target = torch.empty_like(source)
        return [per_second(2 * 4 * N_FLOATS / 1e9, lambda: target.copy_(source)) for _ in range(4)][1:]

    return measured
