"""The method of all measurements: interleaved rounds, their median, and the memory that they take."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pitfalls.report.measurements import MeasuredLine
from pitfalls.training.device import hand_back_memory

MB = 1 << 20
STATUS = Path("/proc/self/status")
Measure = Callable[[], list[float]]
"""A function that measures one round and returns its values. More values make the median better."""


@dataclass
class Line:
    """One measured quantity, which is a line of the table of speeds."""

    name: str
    unit: str
    measure: Measure
    rounds: int
    """Number of rounds to measure."""
    elsewhere: bool = False
    """Whether another process does the work. Then memory is not measured."""
    values: list[list[float]] = field(default_factory=list)
    """The values of each round so far."""
    peak_mb: float = 0.0
    """Peak memory in MB above that before the measurement."""
    process_mb: float = 0.0
    """Peak memory of the process in MB."""
    longest_s: float = 0.0
    """Seconds of its longest round so far."""

    def run(self) -> None:
        before, began = reset_peak_memory(), time.perf_counter()
        self.values.append(self.measure())
        peak, seconds = peak_memory_mb(), time.perf_counter() - began
        self.peak_mb, self.process_mb = max(self.peak_mb, peak - before), max(self.process_mb, peak)
        self.longest_s = max(self.longest_s, seconds)

    @property
    def all_values(self) -> list[float]:
        """The values of all rounds so far, in ascending order."""
        return sorted(value for values in self.values for value in values)

    @property
    def median(self) -> float:
        """The median of all values so far."""
        return statistics.median(self.all_values)

    def result(self) -> MeasuredLine:
        """Return the line as it is kept in a file."""
        return MeasuredLine(self.unit, self.values, None if self.elsewhere else round(self.peak_mb, 1))


def interleave(lines: Sequence[Line], until: float = math.inf, process_s: float = 0.0) -> None:
    """Measure all lines, round by round, so that a machine that is busy for a while slows every line.

    The first round leaves out each line that is expected to end too late: after as long as the longest line so far. A further
    round begins only if all of it is expected to end in time.

    Args:
        lines: the lines. Those left out have no values afterwards.
        until: when the last measurement should have ended, on the clock of `time.perf_counter`.
        process_s: seconds that a new process takes to start.
    """
    for i in range(max(line.rounds for line in lines)):
        due = [line for line in lines if i < line.rounds and i == len(line.values)]
        if i and time.perf_counter() + sum(line.longest_s for line in due) > until:
            return
        for line in due:
            guess = max(other.longest_s for other in lines if not other.elsewhere) + line.elsewhere * process_s
            if time.perf_counter() + (line.longest_s or guess) <= until:
                line.run()


def reset_peak_memory() -> float:
    """Hand freed memory back, forget the peak, and return the MB held now: on the GPU, or by the process (Linux)."""
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
    """Return the peak memory in MB since the last reset: on the GPU, or of the process (0 if not on Linux)."""
    return torch.cuda.max_memory_allocated() / MB if torch.cuda.is_initialized() else memory_mb("VmHWM")


def memory_mb(field: str) -> float:
    """Return a field of the process's status in MB: VmRSS (held now) or VmHWM (peak since the last reset), 0 if not on Linux."""
    if not STATUS.exists():
        return 0.0
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def per_second(n: float, call: Callable[[], Any]) -> float:
    """Return ``n`` divided by the seconds that ``call`` takes. On a GPU the end of its work is awaited."""
    _wait_for_gpu()
    started = time.perf_counter()
    call()
    _wait_for_gpu()
    return n / (time.perf_counter() - started)


def rates(n: float, call: Callable[[], Any], most: int, seconds: float = 1.0) -> list[float]:
    """Return ``n`` per second of each of at most ``most`` calls, after a first one that is left out.

    No call but the first of them begins later than ``seconds`` after the one left out, so that a slow machine makes fewer.
    """
    call()
    began, found = time.perf_counter(), [per_second(n, call)]
    while len(found) < most and time.perf_counter() - began < seconds:
        found.append(per_second(n, call))
    return found


def _wait_for_gpu() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def single_threaded(measure: Measure) -> Measure:
    """Return the measurement, but computed with one thread."""

    def measured() -> list[float]:
        n_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return measure()
        finally:
            torch.set_num_threads(n_threads)

    return measured
