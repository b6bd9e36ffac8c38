"""Whole steps of every objective of the bench, relative to next token."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pitfalls import records
from pitfalls.benchmark.lines import Line
from pitfalls.benchmark.training import whole_steps
from pitfalls.configs import ROOT
from pitfalls.plans import CellPlan
from pitfalls.reproduce import load_plan

GRAPHS = {"task=g2_5": "G(2,5)", "task=g3_3": "G(3,3)", "task=g3_5": "G(3,5)", "task=g5_5": "G(5,5)"}
FIXED = ("task.test_graphs=1000", "training.stop_metric=null", "training.decay_steps=1")


def first_cells() -> dict[str, CellPlan]:
    """How the bench first trains each objective on each graph, by ``<objective> <graph>``."""
    cells: dict[str, CellPlan] = {}
    for cell in load_plan("objectives").cells:
        objective, task = cell.overrides[:2]
        cells.setdefault(f"{objective.removeprefix('objective=')} {GRAPHS[task]}", cell)
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
    relative = {name: round(rates[f"next_token {name.split()[1]}"] / rate, 3) for name, rate in rates.items()}
    return {"relative": relative, "rounds": lines[0].rounds, "load": os.getloadavg()[0], **records.environment(ROOT)}
