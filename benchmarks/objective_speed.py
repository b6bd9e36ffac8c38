"""Whole steps of every objective of the bench, relative to next token."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.timing import Line
from benchmarks.training_speed import whole_steps
from pitfalls.experiment.batch import load_plan
from pitfalls.experiment.config import ROOT, resolve
from pitfalls.experiment.hydra_app import compose
from pitfalls.results.plans import Cell
from pitfalls.runs import run_folder

GRAPHS = {"g2_5": "G(2,5)", "g3_3": "G(3,3)", "g3_5": "G(3,5)", "g5_5": "G(5,5)"}
FIXED = ("task.test_graphs=1000", "training.stop_metric=null", "training.decay_steps=1")


def first_cells() -> dict[str, Cell]:
    """How the bench first trains each objective on each graph, by ``<objective> <graph>, <N>``."""
    n_values = resolve(compose(["experiment=objectives"])).task.n_values
    cells: dict[str, Cell] = {}
    for cell in load_plan("objectives").cells:
        objective, task, *more = (override.partition("=") for override in cell.overrides)
        n = next((value for key, _, value in more if key == "task.n_values"), n_values)
        cells.setdefault(f"{objective[2]} {GRAPHS[task[2]]}, {n}", cell)
    return cells


def objective_lines(folder: Path) -> list[Line]:
    """Every objective on each graph."""
    return [
        Line(name, "samples/s", whole_steps([f"experiment={cell.experiment}", *cell.overrides, *FIXED], 4, folder), 5)
        for name, cell in first_cells().items()
    ]


def relative_times(lines: Sequence[Line]) -> dict[str, Any]:
    """Time per step of each objective relative to next token on the same graph, and where that was measured."""
    rates = {line.name: line.median for line in lines}
    relative = {name: round(rates[f"next_token {name.partition(' ')[2]}"] / rate, 3) for name, rate in rates.items()}
    return {"relative": relative, "rounds": lines[0].rounds, "load": os.getloadavg()[0], **run_folder.environment(ROOT)}
