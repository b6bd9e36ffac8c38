"""Speed of greedy answers."""

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.timing import Measure, rates
from pitfalls.experiment.build import Run
from pitfalls.seeding import generator


def answering(run: Run, procedure: Callable[..., Any], n_graphs: int) -> Measure:
    """Return graphs answered per second in one call. A first call is left out.

    Args:
        run: the model and its task.
        procedure: a decoding procedure of `pitfalls.evaluation.decoding`.
        n_graphs: number of graphs answered in each call.
    """
    prompt = run.task.sample(n_graphs, generator(0, "probe")).prompt.to(run.device)

    def answer() -> None:
        with torch.no_grad(), run.autocast():
            procedure(run.trunk, run.objective, prompt, run.task.target_length)

    return lambda: rates(n_graphs, answer, 1)
