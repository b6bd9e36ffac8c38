"""Whole training steps as users run them: data, forward, loss, backward, optimizer, log line."""

import contextlib
import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import Measure, per_second
from pitfalls.experiment.build import build, make_run_splits
from pitfalls.experiment.config import resolve
from pitfalls.experiment.hydra_app import compose
from pitfalls.models import kernels
from pitfalls.models.trunk import Trunk
from pitfalls.seeding import generator
from pitfalls.training.trackers import JsonLines, Tracker
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


@contextlib.contextmanager
def short_trainer(
    overrides: Sequence[str], n_steps: int, folder: Path, tracker: Tracker, prepare: Callable[[Trunk], object] | None = None
) -> Iterator[Trainer]:
    """The trainer of a config, for so few steps; each is logged, into ``folder`` and to the tracker.

    Args:
        overrides: of the config.
        n_steps: of the run.
        folder: where metrics and checkpoints go.
        tracker: what times the steps.
        prepare: what is done to the trunk before.
    """
    config = resolve(compose([*overrides, "training.log_every_steps=1"]))
    config = replace(config, training=replace(config.training, n_steps=n_steps, warmup_steps=1))
    cell = build(config)
    if prepare:
        prepare(cell.trunk)
    with contextlib.closing(JsonLines(folder / "metrics.jsonl", resume_step=0)) as lines:
        yield Trainer(
            trunk=cell.trunk,
            objective=cell.objective,
            stream=make_run_splits(cell).train,
            config=config.training,
            seed=0,
            evaluate=dict,
            checkpoint_dir=folder / "checkpoint",
            trackers=[lines, tracker],
        )


def whole_steps(
    overrides: Sequence[str], n_steps: int, folder: Path, prepare: Callable[[Trunk], object] | None = None
) -> Measure:
    """Samples per second through the trainer; the first step is left out unless it is alone. Arguments: `short_trainer`."""

    def measured() -> list[float]:
        times = StepTimes()
        with short_trainer(overrides, n_steps, folder, times, prepare) as trainer:
            if n_steps == 1:
                times.at.append(time.perf_counter())
            trainer.run()
        return [trainer.config.batch_size / (b - a) for a, b in zip(times.at, times.at[1:], strict=False)]

    return measured


def with_sdpa(trunk: Trunk) -> None:
    """The attention of torch instead of the trunk's."""
    trunk.lm.set_attn_implementation("sdpa")


def compile_blocks(trunk: Trunk) -> None:
    """torch.compile of a GPT-2's blocks, on a GPU as CUDA graphs; not of the last one, which is called another way."""
    mode = "reduce-overhead" if trunk.lm.device.type == "cuda" else "default"
    for block in trunk.lm.base_model.h[:-1]:
        block.forward = torch.compile(block.forward, dynamic=False, mode=mode)


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
