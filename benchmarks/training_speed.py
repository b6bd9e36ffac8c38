"""Speed of whole training steps as users run them: data, forward, loss, backward, optimizer and logging."""

import contextlib
import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.timing import Measure, per_second, rates
from pitfalls.experiment.build import build, make_run_splits
from pitfalls.experiment.config import resolve
from pitfalls.experiment.hydra_app import compose
from pitfalls.models import hf_internals
from pitfalls.models.trunk import Trunk
from pitfalls.runs.records import MetricsRow, TrainRow
from pitfalls.seeding import generator
from pitfalls.training.trackers import JsonLines, Tracker
from pitfalls.training.trainer import Trainer

MODEL_ROWS, MODEL_TOKENS = 64, 32
"""Number of sequences of a batch and of tokens of a sequence in `model_step`."""


class StepClock:
    """A tracker that keeps the time at which each step was logged."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def log(self, row: MetricsRow) -> None:
        """Note the time of a training step."""
        if isinstance(row, TrainRow):
            self.at.append(time.perf_counter())

    def close(self) -> None:
        """Do nothing: no file is open."""


@contextlib.contextmanager
def short_trainer(
    overrides: Sequence[str], n_steps: int, folder: Path, tracker: Tracker, prepare: Callable[[Trunk], object] | None = None
) -> Iterator[Trainer]:
    """Yield a trainer that takes a few steps and logs each of them, to ``folder`` and to the tracker.

    Args:
        overrides: overrides of the config.
        n_steps: number of training steps.
        folder: the folder for metrics and checkpoints.
        tracker: the tracker that times the steps.
        prepare: a function that changes the trunk before training.
    """
    config = resolve(compose([*overrides, "training.log_every_steps=1"]))
    config = replace(config, training=replace(config.training, n_steps=n_steps, warmup_steps=1))
    run = build(config)
    if prepare:
        prepare(run.trunk)
    with contextlib.closing(JsonLines(folder / "metrics.jsonl", resume_step=0)) as lines:
        yield Trainer(
            trunk=run.trunk,
            objective=run.objective,
            stream=make_run_splits(run).train,
            config=config.training,
            optimizer=config.optimizer,
            seed=0,
            evaluate=dict,
            checkpoint_dir=folder / "checkpoint",
            trackers=[lines, tracker],
        )


def whole_steps(
    overrides: Sequence[str], n_steps: int, folder: Path, prepare: Callable[[Trunk], object] | None = None
) -> Measure:
    """Return samples per second of whole steps. The first of several steps is left out. See `short_trainer` for the arguments."""

    def measured() -> list[float]:
        times = StepClock()
        with short_trainer(overrides, n_steps, folder, times, prepare) as trainer:
            if n_steps == 1:
                times.at.append(time.perf_counter())
            trainer.run()
        return [trainer.config.batch_size / (b - a) for a, b in zip(times.at, times.at[1:], strict=False)]

    return measured


def with_sdpa(trunk: Trunk) -> None:
    """Let the trunk use torch's attention instead of ours."""
    trunk.lm.set_attn_implementation("sdpa")


def compile_blocks(trunk: Trunk) -> None:
    """Compile the blocks of a GPT-2, on a GPU as CUDA graphs. The last block is called differently and not compiled."""
    mode = "reduce-overhead" if trunk.lm.device.type == "cuda" else "default"
    for block in hf_internals.blocks(trunk.lm)[:-1]:
        block.forward = torch.compile(block.forward, dynamic=False, mode=mode)


def model_step(model: str, stock: bool = False) -> Measure:
    """Return steps per second of forward and backward alone, in fp32, of 64 sequences of 32 tokens.

    Args:
        model: a preset of ``conf/model/``.
        stock: let a Mamba use transformers' own torch functions instead of ours.
    """
    run = build(resolve(compose([f"model={model}", "task=g2_5", "training.precision=fp32"])))
    tokens = torch.randint(0, run.task.vocabulary.size, (MODEL_ROWS, MODEL_TOKENS), generator=generator(0, "probe"))
    tokens = tokens.to(run.config.training.device)

    def step() -> None:
        logits = run.trunk.logits(run.trunk(tokens).normed)
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten()).backward()
        run.trunk.zero_grad()

    def measured() -> list[float]:
        with stock_functions() if stock else contextlib.nullcontext():
            return [per_second(1, step)] if stock else rates(1, step, 3)

    return measured


@contextlib.contextmanager
def stock_functions() -> Iterator[None]:
    """Let the Mambas use transformers' own torch functions inside this context."""
    ours = {(module, name): getattr(module, name) for module, names in hf_internals.DISPATCHED.items() for name in names}
    for (module, name), bound in ours.items():
        setattr(module, name, inspect.unwrap(bound.on_gpu))
    try:
        yield
    finally:
        for (module, name), bound in ours.items():
            setattr(module, name, bound)
