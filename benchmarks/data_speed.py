"""Speed of drawing graphs, and of reading and writing the authors' text lines, on one core."""

from pathlib import Path

from benchmarks.timing import Measure, per_second, single_threaded
from pitfalls.seeding import generator
from pitfalls.tasks.official_format import read_batches, write_lines
from pitfalls.tasks.path_star import PathStar


def drawing(task: PathStar, n_graphs: int) -> Measure:
    """Return graphs drawn per second, with ``n_graphs`` in each call. The first call is left out."""
    return single_threaded(
        lambda: [per_second(n_graphs, lambda: task.sample(n_graphs, generator(0, "probe"))) for _ in range(4)][1:]
    )


def reading(task: PathStar, path: Path, n_lines: int) -> Measure:
    """Return lines read and parsed per second, from a file of ``n_lines`` lines that is first written to ``path``."""
    path.write_bytes(write_lines(task, task.sample(n_lines, generator(0, "probe"))))
    return single_threaded(lambda: [per_second(n_lines, lambda: list(read_batches(path, task.n_values)))])


def writing(task: PathStar, n_lines: int) -> Measure:
    """Return lines written per second, from graphs that are already drawn."""
    batch = task.sample(n_lines, generator(0, "probe"))
    return single_threaded(lambda: [per_second(n_lines, lambda: write_lines(task, batch))])
