"""Two finished runs on the same new graphs: which of the two is right where, and how sure the difference is."""

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, SupportsIndex

from pitfalls.experiment.build import Run
from pitfalls.experiment.evaluate_run import new_graphs
from pitfalls.experiment.notebook import check_run
from pitfalls.results.statistics import mcnemar, paired_difference
from pitfalls.schemas import ConfigError, check_range

if TYPE_CHECKING:
    from jaxtyping import Bool
    from torch import Tensor

    from pitfalls.tasks.batch import Batch

MAX_GRAPHS = 10**7
"""Largest number of graphs of a comparison. All of them are in memory at once."""
MAX_SEED = 2**53


@dataclass(frozen=True)
class Comparison:
    """How many graphs both, one or neither of two runs answer right, token by token.

    Interval and p-value are about these two trained models on new graphs of their task. They say nothing about other seeds.
    """

    both: int
    """Number of graphs that a and b answer right."""
    only_a: int
    """Number of graphs that a alone answers right."""
    only_b: int
    """Number of graphs that b alone answers right."""
    neither: int
    """Number of graphs that both answer wrong."""

    @property
    def n_graphs(self) -> int:
        """Number of graphs."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def exact_match(self) -> tuple[float, float]:
        """Exact match of a and of b, as shares."""
        return (self.both + self.only_a) / self.n_graphs, (self.both + self.only_b) / self.n_graphs

    @property
    def difference(self) -> float:
        """Exact match of a minus that of b."""
        return (self.only_a - self.only_b) / self.n_graphs

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the difference, paired by graph (Newcombe 1998, method 10)."""
        return paired_difference(self.both, self.only_a, self.only_b, self.neither)

    @property
    def p_value(self) -> float:
        """Two-sided p of McNemar's exact test: in the long run, a and b are right alone equally often."""
        return mcnemar(self.only_a, self.only_b)

    def __repr__(self) -> str:
        (a, b), (low, high) = self.exact_match, self.interval
        return (
            f"Comparison({self.n_graphs:,} graphs: both right {self.both:,}, only a {self.only_a:,}, only b {self.only_b:,}, "
            f"neither {self.neither:,}; exact match {a:.3f} and {b:.3f}, difference {self.difference:+.3f}, "
            f"95 % interval [{low:+.3f}, {high:+.3f}], p = {self.p_value:.2g})"
        )


def compare(run_a: Run, run_b: Run, n_graphs: SupportsIndex = 10_000, *, seed: SupportsIndex = 0) -> Comparison:
    """Return how two runs answer the same new graphs, by their own decoders, paired by graph.

    No graph is in a fixed training set of either run. A run that draws new graphs for every batch keeps no list of them, so
    it may have seen some if its task is small. The same holds for graphs of the run that ``model.init_from`` named.

    Args:
        run_a: a run from `load_run`.
        run_b: another run of the same task. Objective, model, data and seed may differ.
        n_graphs: number of graphs.
        seed: seed of the graphs. It is independent of the seeds of the runs.

    Raises:
        ConfigError: the runs are of different tasks, one does not answer whole paths, or too few graphs are new to both.
    """
    runs = {"run_a": check_run(run_a, "run_a"), "run_b": check_run(run_b, "run_b")}
    n, root = _integer("n_graphs", n_graphs, 1, MAX_GRAPHS), _integer("seed", seed, 0, MAX_SEED)
    if run_a.task != run_b.task:
        tasks = " and ".join(f"{name} answers {run.task} with n_values={run.task.n_values}" for name, run in runs.items())
        raise ConfigError(f"{tasks}: give two runs of one task")
    for name, run in runs.items():
        if len(run.objective.supervised()) < run.task.target_length:
            raise ConfigError(f"{name}: objective={run.config.objective.name} does not answer whole paths; take another run")
    graphs = new_graphs(n, root, run_a, run_b)
    a, b = _right(run_a, graphs), _right(run_b, graphs)
    return Comparison(int((a & b).sum()), int((a & ~b).sum()), int((b & ~a).sum()), int((~a & ~b).sum()))


def _integer(name: str, value: Any, low: int, high: int) -> int:
    """Return the value of an argument as an integer in low..high, or raise a ConfigError that names it."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise ConfigError(f"{name}={value!r}: it must be a whole number, such as 1000") from None
    check_range(name, number, low, high)
    return number


def _right(run: Run, graphs: "Batch") -> "Bool[Tensor, ' B']":
    """Return which graphs a run answers right, on the CPU."""
    from pitfalls.evaluation.score import exact_rows

    with run.autocast():
        return exact_rows(run.trunk, run.objective, graphs.to(run.device)).cpu()
