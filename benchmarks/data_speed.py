"""Speed of drawing graphs and training batches, and of reading and writing the authors' text lines, on one core."""

import itertools
from pathlib import Path

from benchmarks.timing import Measure, per_second, rates, single_threaded
from pitfalls.experiment.build import Run, make_run_splits
from pitfalls.seeding import generator
from pitfalls.tasks.official_format import read_batches, write_lines
from pitfalls.tasks.path_star import PathStar

N_CALLS = 20
"""Number of calls per round, of a millisecond or so each."""


def drawing(task: PathStar, n_graphs: int) -> Measure:
    """Return graphs drawn per second, with ``n_graphs`` in each call. A first call is left out."""
    return single_threaded(lambda: rates(n_graphs, lambda: task.sample(n_graphs, generator(0, "probe")), N_CALLS))


def batches(run: Run) -> Measure:
    """Return rows per second of a run's training batches: graphs, drawn anew where they are in the test set."""
    steps, stream = itertools.count(), make_run_splits(run).train
    n_rows = run.config.training.batch_size
    return single_threaded(lambda: rates(n_rows, lambda: stream.batch(next(steps)), N_CALLS))


def reading(task: PathStar, path: Path, n_lines: int) -> Measure:
    """Return lines read and parsed per second, from a file of ``n_lines`` lines that is first written to ``path``."""
    path.write_bytes(write_lines(task, task.sample(n_lines, generator(0, "probe"))))
    return single_threaded(lambda: [per_second(n_lines, lambda: list(read_batches(path, task.n_values)))])


def writing(task: PathStar, n_lines: int) -> Measure:
    """Return lines written per second, from graphs that are already drawn."""
    batch = task.sample(n_lines, generator(0, "probe"))
    return single_threaded(lambda: [per_second(n_lines, lambda: write_lines(task, batch))])
