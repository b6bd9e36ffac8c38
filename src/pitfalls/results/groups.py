"""Groups of runs, made in one place: the seeds of one config, and runs by any key in the order in which they are found."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from statistics import median
from typing import TypeVar

import msgspec

from pitfalls.results.kept import Kept
from pitfalls.runs.run_folder import run_id

K = TypeVar("K", bound=Hashable)
R = TypeVar("R", bound=Kept)


def grouped(runs: Iterable[R], key: Callable[[R], K]) -> dict[K, list[R]]:
    """Return runs by a key, keys and runs in the order in which they come."""
    groups: dict[K, list[R]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return groups


def seeds_of_configs(runs: Iterable[R]) -> list[list[R]]:
    """Return groups of runs that differ in nothing but the seed, each in the order of its seeds."""

    def config(run: R) -> str:
        return run_id(msgspec.to_builtins(run.config) | {"seed": None})

    return [sorted(group, key=lambda run: run.seed) for group in grouped(runs, config).values()]


def n_solved(runs: Sequence[Kept]) -> int:
    """Return how many of the runs have solved their graph."""
    return sum(run.solved for run in runs)


def n_seeds(runs: Sequence[Kept]) -> int:
    """Return the number of different seeds."""
    return len({run.seed for run in runs})


def median_exact_match(runs: Sequence[Kept]) -> float:
    """Return the median exact match over runs."""
    return median(run.exact_match for run in runs)


def median_run(runs: Sequence[R]) -> R:
    """Return the run of median exact match, the lower one of two.

    A mean over seeds that solve a graph and seeds that do not would be a number that no model has.
    """
    return sorted(runs, key=lambda run: run.exact_match)[(len(runs) - 1) // 2]


def by_seed(values: Sequence[float | None], digits: int = 3) -> str:
    """Return each seed's value as text: outcomes are bimodal, so a mean would hide them."""
    return " / ".join("-" if value is None else f"{value:.{digits}f}" for value in values)


def samples_text(runs: Sequence[Kept]) -> str:
    """Return how many samples the runs have seen, in thousands."""
    seen = sorted({run.record.samples_seen for run in runs})
    texts = list(dict.fromkeys(f"{n / 1000:.0f}" if n >= 10_000 else f"{n / 1000:.1f}" for n in seen))
    return f"{texts[0]} k samples" if len(texts) == 1 else f"{texts[0]} to {texts[-1]} k samples"


def config_text(runs: Sequence[Kept]) -> str:
    """Return what the seeds of one config trained, in words."""
    first = runs[0]
    return (
        f"{first.objective}, {first.model}, {first.config.graph} N={first.config.task.n_values}, {first.data_text}, "
        f"{samples_text(runs)}, {first.config.training['precision']}"
    )
