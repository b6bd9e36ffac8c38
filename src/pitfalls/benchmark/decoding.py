"""Answers per second."""

from collections.abc import Callable
from typing import Any

import torch

from pitfalls.benchmark.lines import Measure, per_second
from pitfalls.cell import Cell
from pitfalls.evaluation import BATCH_ROWS
from pitfalls.seeding import generator


def answering(cell: Cell, procedure: Callable[..., Any], n_graphs: int) -> Measure:
    """Graphs answered greedily by a procedure of `pitfalls.decoding`, in the slices of an evaluation."""
    training = cell.config.training
    prompt = cell.task.sample(n_graphs, generator(0, "probe")).prompt.to(training.device)
    bf16 = training.precision == "bf16"

    def run() -> None:
        with torch.no_grad(), torch.autocast(prompt.device.type, torch.bfloat16, enabled=bf16):
            for rows in prompt.split(BATCH_ROWS):
                procedure(cell.trunk, cell.objective, rows, cell.task.target_length)

    return lambda: [per_second(n_graphs, run)]
