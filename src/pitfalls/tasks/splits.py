"""Streams of batches: online or from a fixed set, never sharing a graph with the test set.

A stream is a function of the step: ``stream.batch(step)`` is the same rows whenever it is asked, so a resumed run
continues with the data it would have seen, and nothing about the data needs saving but the step.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from pitfalls.schemas import ConfigError
from pitfalls.seeding import generator
from pitfalls.tasks.batch import Batch
from pitfalls.tasks.path_star import PathStar

MAX_REDRAWS = 1000
"""Rounds of rejection sampling before we give up; `check_split` refuses the tasks that would need them."""


@dataclass(frozen=True)
class Splits:
    """The data of one run: a training stream, the test rows, and some training rows to evaluate on."""

    train: "Online | Fixed"
    test: Batch


def check_split(task: PathStar, *, train_graphs: int | None, test_graphs: int) -> None:
    """Refuse a task with too few distinct graphs for disjoint training and test sets.

    Raises:
        ConfigError: the graphs asked for outnumber the distinct graphs of the task.
    """
    needed = test_graphs + (train_graphs if train_graphs is not None else test_graphs)
    if needed > task.n_distinct_graphs:
        raise ConfigError(
            f"{task} on n_values={task.n_values} has only {task.n_distinct_graphs} distinct graphs: no disjoint split into "
            f"{'online' if train_graphs is None else train_graphs} training and {test_graphs} test graphs; "
            "raise task.n_values or lower task.test_graphs and task.train_graphs"
        )


def make_splits(
    task: PathStar,
    *,
    seed: int,
    batch_size: int,
    train_graphs: int | None,
    test_graphs: int,
    targets_per_graph: int = 1,
) -> Splits:
    """Draw the test set and set up a training stream that never shows one of its graphs.

    Args:
        task: the graphs.
        seed: the run's root seed.
        batch_size: rows per training batch.
        train_graphs: size of the fixed training set, in graphs; None draws new graphs for every batch (online).
        test_graphs: size of the test set, in graphs; each has one goal.
        targets_per_graph: training rows per graph, see `PathStar.sample`.

    Raises:
        ConfigError: no disjoint split exists.
        ValueError: the rows of a graph do not fit the batch.
    """
    check_split(task, train_graphs=train_graphs, test_graphs=test_graphs)
    test = task.sample(test_graphs, generator(seed, "test"))
    held_out = task.graph_keys(test.prompt).unique()
    if train_graphs is None:
        return Splits(Online(task, seed, batch_size, targets_per_graph, held_out), test)
    rows = sample_unseen(task, train_graphs, generator(seed, "data"), held_out, targets_per_graph)
    return Splits(Fixed(rows, seed, batch_size), test)


def sample_unseen(
    task: PathStar,
    n_graphs: int,
    generator: torch.Generator,
    held_out: Int[Tensor, " K"],
    targets_per_graph: int = 1,
) -> Batch:
    """Like `PathStar.sample`, with every graph whose key is in ``held_out`` (sorted) replaced by a new draw."""
    batch = task.sample(n_graphs, generator, targets_per_graph=targets_per_graph)
    for _ in range(MAX_REDRAWS):
        seen = _contains(held_out, task.graph_keys(batch.prompt)).nonzero()[:, 0]
        if not len(seen):
            return batch
        fresh = task.sample(len(seen) // targets_per_graph, generator, targets_per_graph=targets_per_graph)
        batch.prompt[seen], batch.target[seen] = fresh.prompt, fresh.target
    raise ConfigError(f"{task}: {MAX_REDRAWS} redraws found no graph outside the test set; raise task.n_values")


def _contains(keys: Int[Tensor, " K"], queries: Int[Tensor, " B"]) -> Tensor:
    """Which queries occur in the sorted keys."""
    if not len(keys):
        return torch.zeros_like(queries, dtype=torch.bool)
    place = torch.searchsorted(keys, queries).clamp_(max=len(keys) - 1)
    return keys[place] == queries


class Online:
    """New graphs for every batch.

    Raises:
        ValueError: batch_size is not a multiple of targets_per_graph.
    """

    def __init__(self, task: PathStar, seed: int, batch_size: int, targets_per_graph: int, held_out: Int[Tensor, " K"]) -> None:
        if batch_size % targets_per_graph:
            raise ValueError(f"batch_size={batch_size} is not a multiple of targets_per_graph={targets_per_graph}")
        self.task, self.seed, self.held_out = task, seed, held_out
        self.batch_size, self.targets_per_graph = batch_size, targets_per_graph

    def batch(self, step: int) -> Batch:
        """The rows of one step."""
        n_graphs = self.batch_size // self.targets_per_graph
        return sample_unseen(self.task, n_graphs, generator(self.seed, "data", step), self.held_out, self.targets_per_graph)

    def all_rows(self) -> None:
        """An online stream has no rows to go back to."""


class Fixed:
    """Epochs over a fixed set of rows, each in its own random order; an incomplete last batch of an epoch is dropped.

    Raises:
        ValueError: the set is smaller than one batch.
    """

    def __init__(self, rows: Batch, seed: int, batch_size: int) -> None:
        if len(rows.prompt) < batch_size:
            raise ValueError(f"{len(rows.prompt)} training rows do not fill one batch: batch_size={batch_size}")
        self.rows, self.seed, self.batch_size = rows._replace(shared=None), seed, batch_size  # they are shuffled
        self._epoch, self._order = -1, torch.empty(0)

    def batch(self, step: int) -> Batch:
        """The rows of one step."""
        epoch, place = divmod(step, len(self.rows.prompt) // self.batch_size)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = torch.randperm(len(self.rows.prompt), generator=generator(self.seed, "order", epoch))
        chosen = self._order[place * self.batch_size : (place + 1) * self.batch_size]
        return Batch(self.rows.prompt[chosen], self.rows.target[chosen])

    def all_rows(self) -> Batch:
        """The whole set, to evaluate on."""
        return self.rows
