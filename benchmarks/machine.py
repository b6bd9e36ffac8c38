"""The machine: its peak speeds, to which other speeds are compared, and its description for files."""

import os
from typing import Any

import msgspec
import torch

from benchmarks.timing import Measure, rates
from pitfalls.experiment.config import ROOT
from pitfalls.report.measurements import Environment
from pitfalls.runs import provenance
from pitfalls.training.device import resolve_device

N_FLOATS = 1 << 26
"""Size of the copied array: 256 MB in fp32, more than a cache holds."""
DEVICE = resolve_device("auto")
"""The device of a config by default."""
PRODUCT, N_PRODUCTS = ((8192, 8192, 8192), 20) if DEVICE.type == "cuda" else ((4096, 1024, 2048), 1)
"""Shape of the product (rows, inner size, columns), and number of products per call: enough to keep the device busy."""
N_TIMES = 8


def environment() -> dict[str, Any]:
    """Return the current fields of `Environment`, and the ``load`` of the machine."""
    now = msgspec.convert(provenance.environment(ROOT), Environment)
    return {**msgspec.structs.asdict(now), "load": os.getloadavg()[0]}


def matmul_peak(dtype: torch.dtype) -> Measure:
    """Return GFLOP/s of a large matrix product: the fastest of each round, because it is a peak. The first one is left out."""
    n, inner, m = PRODUCT
    a, b = (torch.randn(shape).to(DEVICE, dtype) for shape in ((n, inner), (inner, m)))

    def products() -> None:
        for _ in range(N_PRODUCTS):
            a @ b

    flop = N_PRODUCTS * 2 * n * inner * m
    return lambda: [max(rates(flop / 1e9, products, N_TIMES))]


def bandwidth() -> Measure:
    """Return GB/s of a copy in memory. Bytes read and bytes written both count."""

    def measured() -> list[float]:
        source = torch.ones(N_FLOATS, device=DEVICE)
        target = torch.empty_like(source)
        return rates(2 * 4 * N_FLOATS / 1e9, lambda: target.copy_(source), 3)

    return measured
