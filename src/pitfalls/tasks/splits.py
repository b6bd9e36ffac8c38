"""Streams of training batches, online or from a fixed set. They never share a graph with the test set.

A stream is a function of the step: ``stream.batch(step)`` gives the same rows whenever it is called. So a resumed run
continues with the data that it would have seen, and only the step has to be saved.
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
"""Largest number of rounds of rejection sampling. `check_split` refuses nearly all tasks that would need more."""


@dataclass(frozen=True)
class Splits:
    """The data of one run."""

    train: "Online | Fixed"
    """Stream of training batches."""
    test: Batch
    """Test rows. Their graphs never occur in training."""


def check_split(task: PathStar, *, train_graphs: int | None, test_graphs: int) -> None:
    """Raise an error if a task has too few distinct graphs for disjoint training and test sets.

    Args:
        task: the task whose graphs are counted.
        train_graphs: size of the fixed training set. None means online training.
        test_graphs: size of the test set.

    Raises:
        ConfigError: the task has fewer distinct graphs. Online training needs as many graphs as the test set.
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
    """Draw the test set, and make a training stream that never shows a graph of the test set.

    Args:
        task: the task that draws the graphs.
        seed: the run's root seed.
        batch_size: rows per training batch.
        train_graphs: size of the fixed training set in graphs. None draws new graphs for every batch (online).
        test_graphs: size of the test set in graphs. Each graph has one goal.
        targets_per_graph: training rows per graph, see `PathStar.sample`.

    Raises:
        ConfigError: no disjoint split exists.
        ValueError: batch_size is no multiple of targets_per_graph, or exceeds the rows of the fixed set.
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
    """Draw graphs as `PathStar.sample` does, and draw those again whose key is held out.

    Args:
        task: the task that draws the graphs.
        n_graphs: number of graphs to draw.
        generator: the only source of randomness.
        held_out: sorted keys (`PathStar.graph_keys`) of the graphs that must not occur.
        targets_per_graph: rows per graph.

    Raises:
        ConfigError: some graph was held out in each of `MAX_REDRAWS` draws.
    """
    batch = task.sample(n_graphs, generator, targets_per_graph=targets_per_graph)
    for _ in range(MAX_REDRAWS):
        seen = _contains(held_out, task.graph_keys(batch.prompt)).nonzero()[:, 0]
        if not len(seen):
            return batch
        # all rows of a graph have its key and lie side by side, so as many whole graphs are drawn as were seen
        fresh = task.sample(len(seen) // targets_per_graph, generator, targets_per_graph=targets_per_graph)
        batch.prompt[seen], batch.target[seen] = fresh.prompt, fresh.target
    raise ConfigError(f"{task}: {MAX_REDRAWS} redraws found no graph outside the test set; raise task.n_values")


def _contains(keys: Int[Tensor, " K"], queries: Int[Tensor, " B"]) -> Tensor:
    """Return a Bool[B] that is True for each query that occurs in the sorted keys."""
    if not len(keys):
        return torch.zeros_like(queries, dtype=torch.bool)
    place = torch.searchsorted(keys, queries).clamp_(max=len(keys) - 1)
    return keys[place] == queries


class Online:
    """A stream of new graphs for every batch.

    Raises:
        ValueError: batch_size is not a multiple of targets_per_graph.
    """

    def __init__(self, task: PathStar, seed: int, batch_size: int, targets_per_graph: int, held_out: Int[Tensor, " K"]) -> None:
        if batch_size % targets_per_graph:
            raise ValueError(f"batch_size={batch_size} is not a multiple of targets_per_graph={targets_per_graph}")
        self.task, self.seed, self.held_out = task, seed, held_out
        self.batch_size, self.targets_per_graph = batch_size, targets_per_graph

    def batch(self, step: int) -> Batch:
        n_graphs = self.batch_size // self.targets_per_graph
        return sample_unseen(self.task, n_graphs, generator(self.seed, "data", step), self.held_out, self.targets_per_graph)

    def all_rows(self) -> None:
        """Return None: an online stream keeps no rows to evaluate on."""


class Fixed:
    """A stream of epochs over a fixed set of rows. Each epoch has its own random order.

    The rows at the end of an epoch that do not fill a batch are left out of that epoch.

    Raises:
        ValueError: the set is smaller than one batch.
    """

    def __init__(self, rows: Batch, seed: int, batch_size: int) -> None:
        if len(rows.prompt) < batch_size:
            raise ValueError(f"{len(rows.prompt)} training rows do not fill one batch: batch_size={batch_size}")
        self.rows, self.seed, self.batch_size = rows._replace(shared=None), seed, batch_size  # shuffled rows share no tokens
        self._epoch, self._order = -1, torch.empty(0)

    def batch(self, step: int) -> Batch:
        epoch, place = divmod(step, len(self.rows.prompt) // self.batch_size)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = torch.randperm(len(self.rows.prompt), generator=generator(self.seed, "order", epoch))
        chosen = self._order[place * self.batch_size : (place + 1) * self.batch_size]
        return Batch(self.rows.prompt[chosen], self.rows.target[chosen])

    def all_rows(self) -> Batch:
        """Return the whole set, to evaluate on."""
        return self.rows
