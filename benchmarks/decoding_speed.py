"""Speed of greedy answers."""

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.timing import Measure, per_second
from pitfalls.experiment.build import Run
from pitfalls.seeding import generator


def answering(run: Run, procedure: Callable[..., Any], n_graphs: int, n_times: int) -> Measure:
    """Return graphs answered per second.

    Args:
        run: the model and its task.
        procedure: a decoding procedure of `pitfalls.evaluation.decoding`.
        n_graphs: number of graphs answered in each call.
        n_times: number of calls per round. The first one is left out.
    """
    prompt = run.task.sample(n_graphs, generator(0, "probe")).prompt.to(run.device)

    def answer() -> None:
        with torch.no_grad(), run.autocast():
            procedure(run.trunk, run.objective, prompt, run.task.target_length)

    return lambda: [per_second(n_graphs, answer) for _ in range(n_times)][1:]
