"""The speed of training, answering, data and start-up, on G(2,5) with N=50: the default of ``scripts/benchmark.py``."""

import math
import shutil
import time
from collections.abc import Callable, Container, Sequence
from pathlib import Path

import torch

from benchmarks import STARTED, data_speed, machine, plain_transformers, startup
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
from pitfalls.schemas import ConfigError
from pitfalls.seeding import generator
from pitfalls.training import cost, device

BATCH_SIZE = 256
FIXED = ("task=g2_5", "task.test_graphs=1000")
FP32 = "training.precision=fp32"
MAMBAS = ("mamba_tiny", "mamba2_tiny")
GPTS = ("gpt_tiny", "gpt_mini")
N_ROUNDS, N_SLOW_ROUNDS = 5, 3
PROFILES = {"gpt_tiny": N_ROUNDS, "gpt_mini": N_SLOW_ROUNDS}
N_ANSWERED = 500
"""Number of graphs answered at once. An evaluation takes twice as many."""
QUICK_S = 45.0
"""Seconds after which a quick benchmark begins nothing new. With what has begun by then it ends within 60."""


def overrides(model: str, *others: str) -> list[str]:
    """Return the overrides of next token on G(2,5), N=50."""
    return [*FIXED, f"model={model}", f"training.batch_size={BATCH_SIZE}", *others]


def build_run(model: str, *others: str) -> Run:
    """Return the run of these overrides."""
    return build(resolve(compose(overrides(model, *others))))


def measure(quick: bool, folder: Path) -> Speed:
    """Measure everything. `pitfalls.report.speed` makes the tables.

    Args:
        quick: measure fewer steps, leave the slowest references out, and end within a minute.
        folder: the folder for the measured runs.
    """
    process_s = time.perf_counter() - STARTED
    flop = {model: flop_per_sample(build_run(model)) for model in GPTS}
    skipped = not_timed()
    lines = plan(quick, folder, skipped)
    profiles: dict[str, list[StepProfile]] = {}
    taken = [_profile(model, quick, folder, profiles) for model in (GPTS[:1] if quick else GPTS)]
    interleave([*lines, *taken], STARTED + QUICK_S if quick else math.inf, process_s)
    skipped |= {line.name: "no time left" for line in (*lines, *taken) if not line.values}
    training = resolve(compose(overrides("gpt_tiny"))).training
    return Speed(
        batch_size=BATCH_SIZE,
        device=training.device if training.device == "cpu" else torch.cuda.get_device_name(),
        n_threads=torch.get_num_threads(),
        precision=training.precision,
        flop_per_sample=flop,
        lines={line.name: line.result() for line in lines if line.values},
        skipped=skipped,
        profiles=profiles,
        **machine.environment(),
    )


def _profile(model: str, quick: bool, folder: Path, profiles: dict[str, list[StepProfile]]) -> Line:
    """Return a line whose rounds each add a profile of a training step to ``profiles``."""

    def measured() -> list[float]:
        found = profile_steps(overrides(model), 3 if quick else 5, folder)
        profiles.setdefault(model, []).append(found)
        return [found.step_s]

    return Line(f"profile/{model}", "s", measured, PROFILES[model])


def flop_per_sample(run: Run) -> FlopPerSample:
    """Return the FLOP of one training sample, forward and backward."""
    nominal = 6 * sum(p.numel() for p in run.trunk.parameters()) * run.task.sequence_length
    batch = run.task.sample(4, generator(0, "probe")).to(run.trunk.lm.device)
    counted = cost.measure(run.trunk, run.objective, batch, seed=0)
    return FlopPerSample(nominal, counted.flops)


def not_timed() -> dict[str, str]:
    """Return the lines that this machine cannot compute, or only emulates, with the reason."""
    found = {}
    training = resolve(compose(overrides("gpt_tiny"))).training
    where = torch.device(training.device)
    if not device.multiplies_bf16(where):
        found["machine/bf16"] = "bf16 is emulated here"
    if training.precision == "fp32":
        found["train/gpt_tiny_fp32"] = "all training is in fp32 here"
    if not shutil.which("g++"):
        found["train/gpt_tiny_compiled"] = "torch.compile needs g++"
    if where.type == "cuda":
        try:
            mamba.require_gpu_kernels()
        except ConfigError:
            lines = ("train/{}", "step/{}", "step/{}_stock")
            found |= {line.format(name): "mamba-ssm's kernels are missing" for line in lines for name in MAMBAS}
    return found


def plan(quick: bool, folder: Path, skipped: Container[str]) -> list[Line]:
    """Return every line to measure.

    Args:
        quick: leave the slowest references out, and measure the small GPT first and new processes last.
        folder: the folder for the measured runs.
        skipped: names of lines to leave out.
    """
    n_lines = 20_000 if quick else 100_000
    run, mambas = build_run("gpt_tiny"), [name for name in MAMBAS if f"train/{name}" not in skipped]
    lines = [
        *([] if quick else startup.lines(N_SLOW_ROUNDS, folder)),
        Line("data/8192_at_once", "graphs/s, 1 core", data_speed.drawing(run.task, 8192), N_ROUNDS),
        Line(f"data/{BATCH_SIZE}_at_once", "graphs/s, 1 core", data_speed.drawing(run.task, BATCH_SIZE), N_ROUNDS),
        Line("data/batches", "graphs/s, 1 core", data_speed.batches(run), N_ROUNDS),
        Line("machine/copy", "GB/s", machine.bandwidth(), N_ROUNDS),
        *(
            Line(f"machine/{name}", "GFLOP/s", machine.matmul_peak(dtype), N_ROUNDS)
            for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
        ),
        Line("official_format/read", "lines/s, 1 core", data_speed.reading(run.task, folder / "lines.txt", n_lines), N_ROUNDS),
        Line("official_format/write", "lines/s, 1 core", data_speed.writing(run.task, n_lines), N_ROUNDS),
        *_models(quick, mambas),
        *_decoding(quick),
        *_training(quick, folder, mambas),
        *_large_training(quick, folder),
    ]
    if quick:
        lines.sort(key=lambda line: (line.elsewhere, "mamba" in line.name or "gpt_mini" in line.name))
    return [line for line in lines if line.name not in skipped]


def _training(quick: bool, folder: Path, mambas: Sequence[str]) -> list[Line]:
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
        **as_it_comes,
        **{
            f"plain_{kind}_our_settings": plain_transformers.steps(reference, kind, n_steps)
            for kind in plain_transformers.ATTENTIONS
        },
        "gpt_tiny_both_goals": ours("gpt_tiny", "task.targets_per_graph=2"),
        "gpt_tiny_fp32": ours("gpt_tiny", FP32),
        "gpt_tiny_fp32_sdpa": ours("gpt_tiny", FP32, prepare=with_sdpa),
        **{model: ours(model) for model in mambas},
    }
    if not quick:
        measures["gpt_tiny_compiled"] = ours("gpt_tiny", prepare=compile_blocks)
    return [
        Line(f"train/{name}", "samples/s", measure, N_ROUNDS, elsewhere=measure in as_it_comes.values())
        for name, measure in measures.items()
    ]


def _large_training(quick: bool, folder: Path) -> list[Line]:
    """Return the lines of whole training steps of gpt_mini and of transformers alone at its size."""
    if quick:
        small = overrides("gpt_mini", "training.batch_size=64")
        return [Line("train/gpt_mini", "samples/s", whole_steps(small, 1, folder), N_SLOW_ROUNDS)]
    reference = plain_transformers.steps_as_it_comes(overrides("gpt_mini", FP32), "sdpa", 2)
    return [
        Line("train/gpt_mini", "samples/s", whole_steps(overrides("gpt_mini"), 4, folder), N_SLOW_ROUNDS),
        Line("train/gpt_mini_plain_sdpa", "samples/s", reference, N_SLOW_ROUNDS, elsewhere=True),
    ]


def _models(quick: bool, mambas: Sequence[str]) -> list[Line]:
    """Return the lines of forward and backward alone: gpt_tiny, and the Mambas with our functions and with transformers' own."""
    lines = [Line(f"step/{name}", "steps/s", model_step(name), N_ROUNDS) for name in ("gpt_tiny", *mambas)]
    stock = () if quick else mambas
    return lines + [Line(f"step/{name}_stock", "steps/s", model_step(name, stock=True), N_SLOW_ROUNDS) for name in stock]


def _decoding(quick: bool) -> list[Line]:
    """Return the lines of greedy answers, with a cache and without."""
    n_graphs = 100 if quick else N_ANSWERED
    sides: Sequence[tuple[str, str, tuple[str, ...], str, int]] = (
        ("gpt_tiny", "gpt_tiny", (), "autoregressive", N_ROUNDS),
        ("gpt_tiny_uncached", "gpt_tiny", (), "autoregressive_uncached", N_ROUNDS),
        ("gpt_mini", "gpt_mini", (), "autoregressive", N_SLOW_ROUNDS),
        ("gpt_mini_uncached", "gpt_mini", (), "autoregressive_uncached", N_SLOW_ROUNDS),
        ("gpt_mini_uncached_fp32", "gpt_mini", (FP32,), "autoregressive_uncached", N_SLOW_ROUNDS),
    )
    sides = [side for side in sides if not (quick and side[0].startswith("gpt_mini_uncached"))]
    runs = {(model, others): build_run(model, *others) for model, others in dict.fromkeys(side[1:3] for side in sides)}
    return [
        Line(f"decode/{name}", "graphs/s", answering(runs[model, others], getattr(decoding, how), n_graphs), rounds)
        for name, model, others, how, rounds in sides
    ]
