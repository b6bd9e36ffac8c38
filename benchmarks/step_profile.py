"""The time of a training step by part: torch's profiler on real steps of next token with a GPT-2, through the trainer.

An operator of the forward pass belongs to the innermost module that runs it. An operator of the backward pass belongs to the
module whose forward operator it differentiates. The time in which no operator runs is called Python. On a GPU it is the time
that the GPU waits.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import GPT2LMHeadModel

from benchmarks.training_speed import short_trainer
from pitfalls.models import hf_internals
from pitfalls.report.measurements import StepProfile
from pitfalls.runs.records import MetricsRow, TrainRow
from pitfalls.tasks.batch import Batch
from pitfalls.training.trainer import Stream

PREFIX = "part of the step: "
STEP_OVER = "a step is over"
BACKWARD = "autograd::engine::evaluate_function: "
REST = "gradient norm, optimizer"
"""Name of the part for operators that belong to no module."""
PARTS = ("data", "embeddings", "attention", "MLP", "norms", "residual sums", "head", "inputs and loss", REST)


class StepMarks:
    """A tracker that leaves a mark in the profile when a step is logged."""

    def log(self, row: MetricsRow) -> None:
        """Mark the end of a training step."""
        if isinstance(row, TrainRow):
            with record_function(STEP_OVER):
                pass

    def close(self) -> None:
        """Do nothing: no file is open."""


class MarkedStream:
    """A stream of batches that marks the drawing of a batch as a part of the step."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def batch(self, step: int) -> Batch:
        with record_function(PREFIX + "data"):
            return self.stream.batch(step)


def profile_steps(overrides: Sequence[str], n_steps: int, folder: Path) -> StepProfile:
    """Return the time of a training step by part. The first step is left out.

    Args:
        overrides: overrides of the config.
        n_steps: number of training steps, at least 2.
        folder: the folder for metrics.

    Raises:
        TypeError: the model is no GPT-2.
    """
    with short_trainer(overrides, n_steps, folder, StepMarks()) as trainer:
        lm = trainer.trunk.lm
        if not isinstance(lm, GPT2LMHeadModel):
            raise TypeError(f"{type(lm).__name__}: only a GPT-2 is taken apart")
        _mark_modules(lm)
        trainer.stream = MarkedStream(trainer.stream)
        marked = _marked("inputs and loss", trainer.objective.training_loss)
        trainer.objective.training_loss = marked  # type: ignore[method-assign]
        on_gpu = trainer.device.type == "cuda"
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
        with profile(activities=activities, acc_events=True) as profiler:
            trainer.run()
    return by_part(list(profiler.events()), on_gpu)


def _mark_modules(lm: GPT2LMHeadModel) -> None:
    """Mark every module with its part. The last block has our own attention, and its residual sums count as attention."""
    blocks = hf_internals.blocks(lm)
    parts: dict[nn.Module, str] = {lm.base_model: "embeddings", lm.get_input_embeddings(): "embeddings"}
    parts |= {module: "norms" for module in lm.modules() if isinstance(module, nn.LayerNorm)}
    parts |= dict.fromkeys(blocks, "residual sums") | {blocks[-1]: "attention", lm.get_output_embeddings(): "head"}
    parts |= dict.fromkeys(hf_internals.attention_modules(lm), "attention") | dict.fromkeys(hf_internals.mlp_modules(lm), "MLP")
    for module, part in parts.items():
        module.register_forward_pre_hook(_enter(part))
        module.register_forward_hook(_leave)


_OPEN: list[record_function] = []


def _enter(part: str) -> Callable[..., None]:
    def enter(*_: object) -> None:
        _OPEN.append(record_function(PREFIX + part))
        _OPEN[-1].__enter__()

    return enter


def _leave(*_: object) -> None:
    _OPEN.pop().__exit__(None, None, None)


def _marked(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def marked(*args: Any, **kwargs: Any) -> Any:
        with record_function(PREFIX + part):
            return function(*args, **kwargs)

    return marked


def by_part(events: Sequence[FunctionEvent], on_gpu: bool) -> StepProfile:
    """Return the profile of several steps from their events. There is a mark at the end of each step."""
    # the kernels of a GPU are events too, but the operators that launch them already count their time
    events = [event for event in events if event.device_type == DeviceType.CPU]
    ends = sorted(event.time_range.start for event in events if event.name == STEP_OVER)
    inside = [event for event in events if ends[0] <= event.time_range.start < ends[-1] and not _is_range(event)]
    inside.sort(key=lambda event: event.time_range.start)
    n_steps, step_us = len(ends) - 1, (ends[-1] - ends[0]) / (len(ends) - 1)
    owner = {event.sequence_nr: _part(event) for event in inside if event.sequence_nr >= 0 and not _in_backward(event)}
    seconds: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for event in inside:
        if event.cpu_parent is None or _is_range(event.cpu_parent):
            backward = event.name.startswith(BACKWARD)
            part = owner.get(event.sequence_nr, REST) if backward else _part(event)
            seconds[part][backward] += _microseconds(event, on_gpu) / n_steps / 1e6
    seconds["Python"][0] = step_us / 1e6 - sum(map(sum, seconds.values()))
    casts = sum(_microseconds(event, on_gpu) for event in inside if _is_cast(event))
    parts = {name: (seconds[name][0], seconds[name][1]) for name in (*PARTS, "Python")}
    return StepProfile(step_s=step_us / 1e6, parts=parts, casts_s=casts / n_steps / 1e6)


def _is_range(event: FunctionEvent) -> bool:
    return event.name.startswith((PREFIX, STEP_OVER, "Optimizer."))


def _in_backward(event: FunctionEvent | None) -> bool:
    while event is not None:
        if event.name.startswith(BACKWARD):
            return True
        event = event.cpu_parent
    return False


def _part(event: FunctionEvent | None) -> str:
    """Return the innermost part that the event lies in."""
    while event is not None:
        if event.name.startswith(PREFIX):
            return event.name.removeprefix(PREFIX)
        event = event.cpu_parent
    return REST


def _microseconds(event: FunctionEvent, on_gpu: bool) -> float:
    return float(event.device_time_total if on_gpu else event.cpu_time_total)


def _is_cast(event: FunctionEvent) -> bool:
    """Return whether a tensor of the model is copied into another precision. Python numbers in a product do not count."""
    if event.name != "aten::_to_copy" or (_part(event) in ("data", REST) and not _in_backward(event)):
        return False
    caller = event.cpu_parent and event.cpu_parent.cpu_parent
    return caller is None or caller.name not in ("aten::mul", "aten::div")
