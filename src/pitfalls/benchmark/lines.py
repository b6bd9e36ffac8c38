"""A measured figure: interleaved rounds, their median and range, and the memory that they take."""

import contextlib
import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

STATUS = Path("/proc/self/status")
Measure = Callable[[], list[float]]
"""Measures once and returns values; the more, the better the median."""


@dataclass
class Line:
    """One measured figure."""

    name: str
    unit: str
    measure: Measure
    rounds: int
    values: list[float] = field(default_factory=list)
    peak_mb: float = 0.0

    def run(self) -> None:
        """One round."""
        before = reset_peak_memory()
        self.values += self.measure()
        self.peak_mb = max(self.peak_mb, memory_mb("VmHWM") - before)

    @property
    def median(self) -> float:
        """Of all rounds so far."""
        return statistics.median(self.values)


def interleave(lines: Sequence[Line]) -> None:
    """All rounds of all lines, round by round: a machine that is busy for a while slows every line."""
    for i in range(max(line.rounds for line in lines)):
        for line in lines:
            if i < line.rounds:
                line.run()


def reset_peak_memory() -> float:
    """Hand freed memory back, forget the process's peak, and return what it holds now (MB; Linux)."""
    gc.collect()
    if not STATUS.exists():
        return 0.0
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return memory_mb("VmRSS")


def memory_mb(field: str) -> float:
    """VmRSS (resident now) or VmHWM (the most since the last reset); 0 where the system does not tell."""
    if not STATUS.exists():
        return 0.0
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def per_second(n: float, run: Callable[[], Any]) -> float:
    """N over the seconds that run takes."""
    started = time.perf_counter()
    run()
    return n / (time.perf_counter() - started)


def single_threaded(measure: Measure) -> Measure:
    """The measurement on one core."""

    def measured() -> list[float]:
        n_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return measure()
        finally:
            torch.set_num_threads(n_threads)

    return measured
