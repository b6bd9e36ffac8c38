"""The speed of training, answering, data and start-up, on G(2,5) with N=50: the default of ``scripts/benchmark.py``."""

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks import data_speed, machine, plain_transformers, startup
from benchmarks.decoding_speed import answering
from benchmarks.step_profile import profile_steps
from benchmarks.timing import Line, Measure, interleave
from benchmarks.training_speed import compile_blocks, model_step, whole_steps, with_sdpa
from pitfalls.evaluation import decoding
from pitfalls.experiment.build import Run, build
from pitfalls.experiment.config import resolve
from pitfalls.experiment.hydra_app import compose
from pitfalls.models import mamba
from pitfalls.models.trunk import Trunk
from pitfalls.report.measurements import FlopPerSample, Speed, StepProfile
from pitfalls.seeding import generator
from pitfalls.training import cost

BATCH_SIZE = 256
FIXED = ("task=g2_5", "task.test_graphs=1000")
FP32 = "training.precision=fp32"
MAMBAS = ("mamba_tiny", "mamba2_tiny")
GPTS = ("gpt_tiny", "gpt_mini")
N_ROUNDS, N_SLOW_ROUNDS = 5, 3
PROFILES = {"gpt_tiny": N_ROUNDS, "gpt_mini": N_SLOW_ROUNDS}
N_ANSWERED = 500
"""Number of graphs answered at once. An evaluation takes twice as many."""


def overrides(model: str, *others: str) -> list[str]:
    """Return the overrides of next token on G(2,5), N=50."""
    return [*FIXED, f"model={model}", f"training.batch_size={BATCH_SIZE}", *others]


def build_run(model: str, *others: str) -> Run:
    """Return the run of these overrides."""
    return build(resolve(compose(overrides(model, *others))))


def measure(quick: bool, folder: Path) -> Speed:
    """Measure everything. `pitfalls.report.speed` makes the tables.

    Args:
        quick: measure one round with fewer steps, and leave the slowest references out.
        folder: the folder for the measured runs.
    """
    flop = {model: flop_per_sample(build_run(model)) for model in GPTS}
    lines = plan(quick, folder)
    interleave(lines)
    profiles = {model: _profiles(model, quick, folder) for model in (GPTS[:1] if quick else GPTS)}
    training = resolve(compose(overrides("gpt_tiny"))).training
    return Speed(
        batch_size=BATCH_SIZE,
        device=training.device if training.device == "cpu" else torch.cuda.get_device_name(),
        n_threads=torch.get_num_threads(),
        precision=training.precision,
        flop_per_sample=flop,
        lines={line.name: line.result() for line in lines},
        profiles=profiles,
        **machine.environment(),
    )


def _profiles(model: str, quick: bool, folder: Path) -> list[StepProfile]:
    """Profile a training step several times."""
    return [profile_steps(overrides(model), 3 if quick else 5, folder) for _ in range(1 if quick else PROFILES[model])]


def flop_per_sample(run: Run) -> FlopPerSample:
    """Return the FLOP of one training sample, forward and backward."""
    nominal = 6 * sum(p.numel() for p in run.trunk.parameters()) * run.task.sequence_length
    batch = run.task.sample(4, generator(0, "probe")).to(run.trunk.lm.device)
    counted = cost.measure(run.trunk, run.objective, batch, seed=0)
    return FlopPerSample(nominal, counted.flops)


def plan(quick: bool, folder: Path) -> list[Line]:
    """Return every line to measure. A quick plan leaves out the slowest references."""
    few, slow = (1, 1) if quick else (N_ROUNDS, N_SLOW_ROUNDS)
    n_lines = 20_000 if quick else 100_000
    task, mambas = build_run("gpt_tiny").task, mambas_that_run()
    return [
        *([] if quick else startup.lines(slow, folder)),
        Line("machine/fp32", "GFLOP/s", machine.matmul_peak(torch.float32), few),
        Line("machine/bf16", "GFLOP/s", machine.matmul_peak(torch.bfloat16), few),
        Line("machine/copy", "GB/s", machine.bandwidth(), few),
        Line("data/8192_at_once", "graphs/s, 1 core", data_speed.drawing(task, 8192), few),
        Line(f"data/{BATCH_SIZE}_at_once", "graphs/s, 1 core", data_speed.drawing(task, BATCH_SIZE), few),
        Line("official_format/read", "lines/s, 1 core", data_speed.reading(task, folder / "lines.txt", n_lines), few),
        Line("official_format/write", "lines/s, 1 core", data_speed.writing(task, n_lines), few),
        *_training(quick, folder, few, mambas),
        *_large_training(quick, folder, slow),
        *_models(quick, few, slow, mambas),
        *_decoding(quick, few, slow),
    ]


def mambas_that_run() -> Sequence[str]:
    """Return the Mambas to time. On a GPU without mamba-ssm's kernels there are none, and a message on stderr reports it."""
    if torch.device(resolve(compose(overrides("gpt_tiny"))).training.device).type == "cuda":
        try:
            mamba.require_gpu_kernels()
        except ValueError as error:
            print(f"not timed: {', '.join(MAMBAS)}: {error}", file=sys.stderr)
            return ()
    return MAMBAS


def _training(quick: bool, folder: Path, rounds: int, mambas: Sequence[str]) -> list[Line]:
    """Return the lines of whole training steps of the small models and of transformers alone."""
    n_steps = 2 if quick else 4

    def ours(model: str, *others: str, prepare: Callable[[Trunk], object] | None = None) -> Measure:
        return whole_steps(overrides(model, *others), n_steps, folder, prepare)

    reference = build_run("gpt_tiny", FP32)
    as_it_comes = {
        f"plain_{kind}": plain_transformers.steps_as_it_comes(overrides("gpt_tiny", FP32), kind, n_steps)
        for kind in plain_transformers.ATTENTIONS
    }
    measures = {
        "gpt_tiny": ours("gpt_tiny"),
        "gpt_tiny_both_goals": ours("gpt_tiny", "task.targets_per_graph=2"),
        "gpt_tiny_fp32": ours("gpt_tiny", FP32),
        "gpt_tiny_fp32_sdpa": ours("gpt_tiny", FP32, prepare=with_sdpa),
        **as_it_comes,
        **{
            f"plain_{kind}_our_settings": plain_transformers.steps(reference, kind, n_steps)
            for kind in plain_transformers.ATTENTIONS
        },
        **{model: ours(model) for model in mambas},
    }
    if not quick and shutil.which("g++"):  # torch.compile needs it
        measures["gpt_tiny_compiled"] = ours("gpt_tiny", prepare=compile_blocks)
    return [
        Line(f"train/{name}", "samples/s", measure, rounds, elsewhere=measure in as_it_comes.values())
        for name, measure in measures.items()
    ]


def _large_training(quick: bool, folder: Path, rounds: int) -> list[Line]:
    """Return the lines of whole training steps of gpt_mini and of transformers alone at its size."""
    if quick:
        small = overrides("gpt_mini", "training.batch_size=64")
        return [Line("train/gpt_mini", "samples/s", whole_steps(small, 1, folder), rounds)]
    reference = plain_transformers.steps_as_it_comes(overrides("gpt_mini", FP32), "sdpa", 2)
    return [
        Line("train/gpt_mini", "samples/s", whole_steps(overrides("gpt_mini"), 4, folder), rounds),
        Line("train/gpt_mini_plain_sdpa", "samples/s", reference, rounds, elsewhere=True),
    ]


def _models(quick: bool, few: int, slow: int, mambas: Sequence[str]) -> list[Line]:
    """Return the lines of forward and backward alone: gpt_tiny, and the Mambas with our functions and with transformers' own."""
    lines = [Line(f"step/{name}", "steps/s", model_step(name), few) for name in ("gpt_tiny", *mambas)]
    stock = [] if quick else [Line(f"step/{name}_stock", "steps/s", model_step(name, stock=True), slow) for name in mambas]
    return lines + stock


def _decoding(quick: bool, few: int, slow: int) -> list[Line]:
    """Return the lines of greedy answers, with a cache and without."""
    n_graphs = 100 if quick else N_ANSWERED
    sides: Sequence[tuple[str, str, tuple[str, ...], str, int]] = (
        ("gpt_tiny", "gpt_tiny", (), "autoregressive", few),
        ("gpt_tiny_uncached", "gpt_tiny", (), "autoregressive_uncached", few),
        ("gpt_mini", "gpt_mini", (), "autoregressive", slow),
        ("gpt_mini_uncached", "gpt_mini", (), "autoregressive_uncached", slow),
        ("gpt_mini_uncached_fp32", "gpt_mini", (FP32,), "autoregressive_uncached", slow),
    )
    return [
        Line(f"decode/{name}", "graphs/s", answering(build_run(model, *others), getattr(decoding, how), n_graphs, 2), rounds)
        for name, model, others, how, rounds in sides
        if not (quick and "uncached" in name and model == "gpt_mini")
    ]
