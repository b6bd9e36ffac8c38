"""Whole training steps as users run them: data, forward, loss, backward, optimizer, log line."""

import contextlib
import inspect
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pitfalls.application import compose
from pitfalls.benchmark.lines import Measure, per_second
from pitfalls.cell import build, make_run_splits
from pitfalls.configs import resolve
from pitfalls.models import kernels
from pitfalls.seeding import generator
from pitfalls.training.trackers import JsonLines
from pitfalls.training.trainer import Trainer

MODEL_ROWS, MODEL_TOKENS = 64, 32


class StepTimes:
    """A tracker that keeps when each step was logged."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def log(self, row: dict[str, Any]) -> None:
        """A step is over."""
        if row["kind"] == "train":
            self.at.append(time.perf_counter())

    def close(self) -> None:
        """Nothing to put away."""


def whole_steps(overrides: Sequence[str], n_steps: int, folder: Path, attention: str | None = None) -> Measure:
    """Samples per second through the trainer; the first step is left out unless it is the only one.

    Args:
        overrides: of the config.
        n_steps: steps of a round.
        folder: where metrics go.
        attention: an ``attn_implementation`` of transformers instead of the trunk's own.
    """

    def measured() -> list[float]:
        config = resolve(compose([*overrides, "training.log_every_steps=1"]))
        config = replace(config, training=replace(config.training, n_steps=n_steps, warmup_steps=1))
        cell, times = build(config), StepTimes()
        if attention:
            cell.trunk.lm.set_attn_implementation(attention)
        lines = JsonLines(folder / "metrics.jsonl", resume_step=0)
        if n_steps == 1:
            times.at.append(time.perf_counter())
        Trainer(
            trunk=cell.trunk,
            objective=cell.objective,
            stream=make_run_splits(cell).train,
            config=config.training,
            seed=0,
            evaluate=dict,
            checkpoint_dir=folder / "checkpoint",
            trackers=[lines, times],
        ).run()
        lines.close()
        return [config.training.batch_size / (b - a) for a, b in zip(times.at, times.at[1:], strict=False)]

    return measured


def model_step(model: str, stock: bool = False) -> Measure:
    """Steps per second of forward and backward of 64 sequences of 32 tokens, fp32.

    Args:
        model: a preset.
        stock: a Mamba on transformers' own torch functions.
    """
    cell = build(resolve(compose([f"model={model}", "task=g2_5", "training.precision=fp32"])))
    tokens = torch.randint(0, cell.task.vocabulary.size, (MODEL_ROWS, MODEL_TOKENS), generator=generator(0, "probe"))
    tokens = tokens.to(cell.config.training.device)

    def step() -> None:
        logits = cell.trunk.logits(cell.trunk(tokens).normed)
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten()).backward()
        cell.trunk.zero_grad()

    def measured() -> list[float]:
        with stock_functions() if stock else contextlib.nullcontext():
            return [per_second(1, step) for _ in range(1 if stock else 4)][0 if stock else 1 :]

    return measured


@contextlib.contextmanager
def stock_functions() -> Iterator[None]:
    """The Mambas on transformers' own torch functions."""
    ours = {(module, name): getattr(module, name) for module, names in kernels.DISPATCHED.items() for name in names}
    for (module, name), bound in ours.items():
        setattr(module, name, inspect.unwrap(bound.on_gpu))
    try:
        yield
    finally:
        for (module, name), bound in ours.items():
            setattr(module, name, bound)
