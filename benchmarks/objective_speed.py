"""Time per training step of every objective of the leaderboard, relative to next token."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.machine import environment
from benchmarks.timing import Line, interleave
from benchmarks.training_speed import whole_steps
from pitfalls.experiment.config import resolve
from pitfalls.experiment.hydra_app import compose
from pitfalls.experiment.run_sets import load_plan
from pitfalls.report.measurements import StepTimes
from pitfalls.results.formats import Table
from pitfalls.results.plans import Cell

GRAPHS = {"g2_5": "G(2,5)", "g3_3": "G(3,3)", "g3_5": "G(3,5)", "g5_5": "G(5,5)"}
FIXED = ("task.test_graphs=1000", "training.stop_metric=null", "training.decay_steps=1")


def first_cells() -> dict[str, Cell]:
    """Return the first preset that trains each objective on each graph, by ``<objective> <graph>, <N>``."""
    n_values = resolve(compose(["experiment=objectives"])).task.n_values
    cells: dict[str, Cell] = {}
    for cell in load_plan("objectives").cells:
        objective, task, *more = (override.partition("=") for override in cell.overrides)
        n = next((value for key, _, value in more if key == "task.n_values"), n_values)
        cells.setdefault(f"{objective[2]} {GRAPHS[task[2]]}, {n}", cell)
    return cells


def measure(folder: Path) -> StepTimes:
    """Time every objective on each graph. The measured runs write to ``folder``."""
    lines = [
        Line(name, "samples/s", whole_steps([f"experiment={cell.experiment}", *cell.overrides, *FIXED], 4, folder), 5)
        for name, cell in first_cells().items()
    ]
    interleave(lines)
    return StepTimes(relative=relative_times(lines), rounds=lines[0].rounds, **environment())


def relative_times(lines: Sequence[Line]) -> dict[str, float]:
    """Return the time per step of each line over that of next token on the same graph."""
    rates = {line.name: line.median for line in lines}
    return {name: round(rates[f"next_token {name.partition(' ')[2]}"] / rate, 3) for name, rate in rates.items()}


def table(measured: StepTimes) -> Table:
    """Return the table of the times, with a row per objective and graph."""
    rows = []
    for name, time in measured.relative.items():
        objective, graph = name.split(" ", 1)
        rows.append((objective.replace("_", " "), graph.replace(", ", ", N="), f"{time:.2f}"))
    note = f"Time per training step over that of next token on the same graph. Medians of {measured.rounds} interleaved rounds."
    return Table("Time per step of each objective", ("objective", "graph", "time over next token"), tuple(rows), note)
