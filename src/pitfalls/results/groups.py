"""Groups of runs: the seeds of one config, or runs that share a key."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from statistics import median
from typing import TypeVar

import msgspec

from pitfalls.results.kept import Kept
from pitfalls.runs.run_folder import run_id

K = TypeVar("K", bound=Hashable)
R = TypeVar("R", bound=Kept)


def grouped(runs: Iterable[R], key: Callable[[R], K]) -> dict[K, list[R]]:
    """Return groups of runs by a key. Groups and runs keep the order of the input."""
    groups: dict[K, list[R]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return groups


def seeds_of_configs(runs: Iterable[R]) -> list[list[R]]:
    """Return groups of runs that differ in nothing but the seed. Each group is sorted by seed."""

    def config(run: R) -> str:
        return run_id(msgspec.to_builtins(run.config) | {"seed": None})

    return [sorted(group, key=lambda run: run.seed) for group in grouped(runs, config).values()]


def n_solved(runs: Sequence[Kept]) -> int:
    """Return the number of runs that have solved their graph."""
    return sum(run.solved for run in runs)


def n_seeds(runs: Sequence[Kept]) -> int:
    """Return the number of different seeds."""
    return len({run.seed for run in runs})


def median_exact_match(runs: Sequence[Kept]) -> float:
    """Return the median exact match over runs."""
    return median(run.exact_match for run in runs)


def median_run(runs: Sequence[R]) -> R:
    """Return the run with the median exact match. Of two middle runs, the one with the lower value.

    A mean over seeds that solve a graph and seeds that do not would be a score that no model has.
    """
    return sorted(runs, key=lambda run: run.exact_match)[(len(runs) - 1) // 2]


def by_seed(values: Sequence[float | None], digits: int = 3) -> str:
    """Return the values of all seeds as text. Outcomes are bimodal, so a mean would hide them."""
    return " / ".join("-" if value is None else f"{value:.{digits}f}" for value in values)


def thousands(n_samples: int) -> str:
    """Return a number of samples in thousands, such as ``2,400``; below ten thousand with one digit more."""
    return f"{n_samples / 1000:,.0f}" if n_samples >= 10_000 else f"{n_samples / 1000:.1f}"


def samples_text(runs: Sequence[Kept]) -> str:
    """Return how many samples the runs have seen, such as ``64 to 141 k``."""
    seen = sorted({run.record.samples_seen for run in runs})
    texts = list(dict.fromkeys(map(thousands, seen)))
    return f"{texts[0]} k" if len(texts) == 1 else f"{texts[0]} to {texts[-1]} k"


def training_text(runs: Sequence[Kept]) -> str:
    """Return what tells the trainings on one graph apart: samples and precision, such as ``64 k, bf16``."""
    return f"{samples_text(runs)}, {runs[0].config.precision}"


def config_text(runs: Sequence[Kept]) -> str:
    """Return what the seeds of one config trained, in words."""
    first = runs[0]
    return (
        f"{first.objective.replace('_', ' ')}, {first.model}, {first.config.graph} N={first.config.task.n_values}, "
        f"{first.data_text}, {samples_text(runs)} samples, {first.config.precision}"
    )
