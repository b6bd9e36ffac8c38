"""Answers per second."""

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.timing import Measure, per_second
from pitfalls.experiment.build import Run
from pitfalls.seeding import generator


def answering(cell: Run, procedure: Callable[..., Any], n_rows: int, n_slices: int) -> Measure:
    """Graphs answered greedily per second by a procedure of `evaluation.decoding`, many at a time; the first time is left out."""
    training = cell.config.training
    prompt = cell.task.sample(n_rows, generator(0, "probe")).prompt.to(training.device)
    bf16 = training.precision == "bf16"

    def run() -> None:
        with torch.no_grad(), torch.autocast(prompt.device.type, torch.bfloat16, enabled=bf16):
            procedure(cell.trunk, cell.objective, prompt, cell.task.target_length)

    return lambda: [per_second(n_rows, run) for _ in range(n_slices)][1:]
