"""Growth of time and memory of a training step with the graph, the batch and the model."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from benchmarks.machine import environment
from benchmarks.timing import STATUS, Line, Measure, interleave, peak_memory_mb, per_second
from benchmarks.training_speed import whole_steps
from pitfalls.experiment.build import Run, build
from pitfalls.experiment.config import resolve
from pitfalls.experiment.hydra_app import compose
from pitfalls.models.cpu.attention import needs_no_mask
from pitfalls.models.hf_internals import attention_modules, attention_name, mlp_modules
from pitfalls.models.masks import causal_mask
from pitfalls.report.measurements import AttentionTime, Scaling, ScalingPoint
from pitfalls.schemas import Config, ConfigError
from pitfalls.tasks.path_star import PathStar

BASE = ("model=gpt_tiny", "task=g2_5", "task.n_values=200", "task.test_graphs=64", "training.batch_size=64")
"""The config that all axes start from, in the default precision of a run."""
AXES = {
    "degree": ("task.degree", (2, 4, 8, 16, 32)),
    "path length": ("task.path_length", (3, 5, 9, 17, 33, 65)),
    "node values": ("task.n_values", (50, 200, 800, 3200)),
    "batch size": ("training.batch_size", (16, 64, 256, 1024)),
    "width": ("model.width", (64, 128, 256, 512)),
    "layers": ("model.n_layers", (2, 4, 8, 16)),
}
"""Config key and values of each axis."""
LIMIT_MB = 8192.0
"""Memory in MB of the process in which the largest graph is trained."""
N_ROUNDS, N_STEPS, N_REPEATS = 3, 3, 4


def measure(folder: Path) -> Scaling:
    """Measure every axis, the largest graph, and attention compared with the MLP. The measured runs write to ``folder``.

    Raises:
        ConfigError: the system does not report the memory of a process.
    """
    if not peak_memory_mb():
        raise ConfigError(f"scaling reads the memory of this process from {STATUS}, which does not exist here; run it on Linux")
    return Scaling(
        base=list(BASE),
        precision=resolve(compose([*BASE])).training.precision,
        points=points(folder, AXES),
        largest=largest_graph(LIMIT_MB, folder),
        attention=attention_by_length(AXES["path length"][1]),
        rounds=N_ROUNDS,
        **environment(),
    )


def points(folder: Path, axes: dict[str, tuple[str, tuple[int, ...]]]) -> list[ScalingPoint]:
    """Measure whole steps through the trainer, in interleaved rounds, at every value of every axis."""
    places = [(axis, value, [*BASE, f"{key}={value}"]) for axis, (key, values) in axes.items() for value in values]
    lines = [Line(axis, "samples/s", whole_steps(overrides, N_STEPS, folder), N_ROUNDS) for axis, _, overrides in places]
    interleave(lines)
    return [_point(line, value, resolve(compose(overrides))) for line, (_, value, overrides) in zip(lines, places, strict=True)]


def _point(line: Line, value: int, config: Config) -> ScalingPoint:
    rows, task = config.training.batch_size, config.task
    n_tokens = PathStar(task.degree, task.path_length, task.n_values).sequence_length
    seconds = sorted(rows / rate for rate in line.all_values)
    return ScalingPoint(line.name, value, n_tokens, rows / line.median, seconds[0], seconds[-1], line.peak_mb)


def largest_graph(limit_mb: float, folder: Path, path_length: int = 65) -> ScalingPoint:
    """Return the longest G(2,l) that trains in a process of ``limit_mb`` MB, one sample at a time. The length is right to 5 %.

    No part of a step grows faster than the square of the length. So if the length grows by the root of the remaining memory, the
    step stays within the limit, except for noise. The memory of the point is that of the whole process.
    """
    while True:
        overrides = [*BASE, f"task.path_length={path_length}", f"task.n_values={2 * path_length}", "training.batch_size=1"]
        line = Line("largest", "samples/s", whole_steps(overrides, 1, folder), 1)  # the last steps take minutes
        line.run()
        growth = min(2.0, math.sqrt(limit_mb / line.process_mb))
        if 1 <= growth < 1.05:
            point = _point(line, path_length, resolve(compose(overrides)))
            return msgspec.structs.replace(point, peak_mb=line.process_mb)
        path_length = int(path_length * (growth if growth >= 1.05 else 0.98 * min(growth, 1.0)))


def attention_by_length(path_lengths: Sequence[int]) -> list[AttentionTime]:
    """Measure the attention and the MLPs of the base at several path lengths."""
    rows = []
    for path_length in path_lengths:
        run = build(resolve(compose([*BASE, f"task.path_length={path_length}"])))
        lines = [Line(name, "s", part, N_ROUNDS) for name, part in zip(("attention", "mlp"), parts(run), strict=True)]
        interleave(lines)
        rows.append(AttentionTime(path_length, run.task.sequence_length, *(line.median for line in lines)))
    return rows


def parts(run: Run) -> tuple[Measure, Measure]:
    """Return seconds per step in the attention and in the MLPs of a GPT-2, with the shapes of its training steps.

    The last block is left out: its attention is another function.
    """
    training, tokens, trunk = run.config.training, run.task.sequence_length, run.trunk
    n_blocks, attention, mlp = trunk.n_layers - 1, attention_modules(trunk.lm)[0], mlp_modules(trunk.lm)[0]
    states = torch.randn(training.batch_size, tokens, trunk.width, device=training.device)
    unmasked = needs_no_mask(attention_name(trunk.lm), tokens)
    mask = None if unmasked else causal_mask(tokens, tokens, states.dtype, states.device)

    def seconds(forward: Callable[[Tensor], Tensor]) -> list[float]:
        def both_ways() -> None:
            leaf = states.clone().requires_grad_()
            with run.autocast():
                output = forward(leaf)
            output.backward(torch.ones_like(output))
            for module in (attention, mlp):
                module.zero_grad(set_to_none=True)

        return [n_blocks / per_second(1, both_ways) for _ in range(N_REPEATS)][1:]

    return lambda: seconds(lambda x: attention(x, attention_mask=mask)[0]), lambda: seconds(mlp)
