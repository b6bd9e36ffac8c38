"""Whole steps of every objective of the bench, relative to next token."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pitfalls import records
from pitfalls.benchmark.lines import Line
from pitfalls.benchmark.training import whole_steps
from pitfalls.configs import ROOT
from pitfalls.reproduce import load_plan

TASKS = {"G(2,5)": "g2_5", "G(3,3)": "g3_3", "G(3,5)": "g3_5", "G(5,5)": "g5_5"}
FIXED = ("experiment=objectives", "task.n_values=21", "task.test_graphs=1000", "training.stop_metric=null",
         "training.decay_steps=1")  # fmt: skip


def objective_lines(folder: Path) -> list[Line]:
    """Every objective on each graph, as the bench trains them."""
    overrides = [override for cell in load_plan("objectives").cells for override in cell.overrides]
    names = dict.fromkeys(text.removeprefix("objective=") for text in overrides if text.startswith("objective="))
    return [
        Line(f"{name} {graph}", "samples/s", whole_steps([*FIXED, f"task={task}", f"objective={name}"], 4, folder), 5)
        for graph, task in TASKS.items() for name in names
    ]  # fmt: skip


def relative_times(lines: Sequence[Line]) -> dict[str, Any]:
    """Time per step of each objective relative to next token on the same graph, and where that was measured."""
    rates = {line.name: line.median for line in lines}
    relative = {name: round(rates[f"next_token {name.split()[1]}"] / rate, 3) for name, rate in rates.items()}
    return {"relative": relative, "rounds": lines[0].rounds, "load": os.getloadavg()[0], **records.environment(ROOT)}
