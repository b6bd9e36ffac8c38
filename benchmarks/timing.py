"""A measured figure: interleaved rounds, their median and range, and the memory that they take."""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pitfalls.training.device import hand_back_memory

MB = 1 << 20
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
    elsewhere: bool = False
    """Whether another process does the work, whose memory is not looked into."""
    values: list[list[float]] = field(default_factory=list)
    """By round."""
    peak_mb: float = 0.0
    """The most that it took beyond what the process held before."""
    process_mb: float = 0.0
    """The most that the process held with it."""

    def run(self) -> None:
        """One round."""
        before = reset_peak_memory()
        self.values.append(self.measure())
        peak = peak_memory_mb()
        self.peak_mb, self.process_mb = max(self.peak_mb, peak - before), max(self.process_mb, peak)

    @property
    def all_values(self) -> list[float]:
        """Of all rounds so far, in ascending order."""
        return sorted(value for values in self.values for value in values)

    @property
    def median(self) -> float:
        """Of all rounds so far."""
        return statistics.median(self.all_values)

    def to_json(self) -> dict[str, Any]:
        """What a record keeps of it."""
        return {"unit": self.unit, "rounds": self.values, "peak_mb": None if self.elsewhere else round(self.peak_mb, 1)}


def interleave(lines: Sequence[Line]) -> None:
    """All rounds of all lines, round by round: a machine that is busy for a while slows every line."""
    for i in range(max(line.rounds for line in lines)):
        for line in lines:
            if i < line.rounds:
                line.run()


def reset_peak_memory() -> float:
    """Hand freed memory back, forget the peak, and return what is held now: by the process (Linux), or on the GPU; MB."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / MB
    if not STATUS.exists():
        return 0.0
    hand_back_memory()
    Path("/proc/self/clear_refs").write_text("5")
    return memory_mb("VmRSS")


def peak_memory_mb() -> float:
    """The most since the last reset, by the process or on the GPU."""
    return torch.cuda.max_memory_allocated() / MB if torch.cuda.is_initialized() else memory_mb("VmHWM")


def memory_mb(field: str) -> float:
    """VmRSS (resident now) or VmHWM (the most since the last reset); 0 where the system does not tell."""
    if not STATUS.exists():
        return 0.0
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def per_second(n: float, run: Callable[[], Any]) -> float:
    """N over the seconds that run takes, until the GPU is done with it."""
    _wait_for_gpu()
    started = time.perf_counter()
    run()
    _wait_for_gpu()
    return n / (time.perf_counter() - started)


def _wait_for_gpu() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


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
