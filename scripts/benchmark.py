"""Time what a user runs, on this machine: ``python scripts/benchmark.py [--quick] [--json -]``.

Every line is the median of several rounds with its range (with ``--quick``: of one); the rounds of all lines are
interleaved, so a machine that is busy for a while slows all of them. Training is whole steps: data, forward, loss, backward,
optimizer, log line. GFLOP/s are nominal: 6 x parameters x all tokens, prompt included. Peak memory is what a line takes beyond
what the process held before it. ``step/`` lines are forward and backward of 64 sequences of 32 tokens, all in fp32: the Mambas
with our CPU functions, with transformers' own, and a GPT-2 of the same width and depth. Not yet run on a GPU.
"""

import argparse
import contextlib
import ctypes
import gc
import inspect
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

N_THREADS = min(2, os.cpu_count() or 1)
os.environ.setdefault("OMP_NUM_THREADS", str(N_THREADS))

import torch  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from pitfalls import decoding, records  # noqa: E402
from pitfalls.application import compose  # noqa: E402
from pitfalls.cell import Cell, build, make_run_splits  # noqa: E402
from pitfalls.command_line import exit_on_error  # noqa: E402
from pitfalls.configs import ROOT, resolve  # noqa: E402
from pitfalls.models import kernels  # noqa: E402
from pitfalls.plain_files import write_json  # noqa: E402
from pitfalls.reproduce import load_plan  # noqa: E402
from pitfalls.seeding import generator  # noqa: E402
from pitfalls.tasks.official_format import read_batches, write_lines  # noqa: E402
from pitfalls.training.trackers import JsonLines  # noqa: E402
from pitfalls.training.trainer import Trainer  # noqa: E402

STATUS = Path("/proc/self/status")


@dataclass
class Line:
    """One measured figure: ``measure`` runs it once and returns values per second."""

    name: str
    unit: str
    measure: Callable[[], list[float]]
    rounds: int
    values: list[float] = field(default_factory=list)
    peak_mb: float = 0.0

    def run(self) -> None:
        """One round."""
        before = reset_peak_memory()
        self.values += self.measure()
        self.peak_mb = max(self.peak_mb, memory_mb("VmHWM") - before)

    @property
    def median(self) -> float:
        """Of all rounds so far."""
        return statistics.median(self.values)


def reset_peak_memory() -> float:
    """Hand freed memory back, forget the process's peak, and return what it holds now (MB; Linux)."""
    gc.collect()
    if not STATUS.exists():
        return 0.0
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return memory_mb("VmRSS")


def memory_mb(field: str) -> float:
    """VmRSS (resident now) or VmHWM (the most since the last reset); 0 where the system does not tell."""
    if not STATUS.exists():
        return 0.0
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def per_second(n: float, run: Callable[[], Any]) -> float:
    """N over the seconds that run takes."""
    started = time.perf_counter()
    run()
    return n / (time.perf_counter() - started)


def single_threaded(measure: Callable[[], list[float]]) -> Callable[[], list[float]]:
    """The measurement on one core."""

    def measured() -> list[float]:
        torch.set_num_threads(1)
        try:
            return measure()
        finally:
            torch.set_num_threads(N_THREADS)

    return measured


# ------------------------------------------------------------------ what is measured


def matmul_peak(dtype: torch.dtype) -> Callable[[], list[float]]:
    """GFLOP/s of a large matrix product."""
    a, b = (torch.randn(shape).to(dtype) for shape in ((4096, 1024), (1024, 2048)))
    return lambda: [per_second(2 * 4096 * 1024 * 2048 / 1e9, lambda: a @ b) for _ in range(3)][1:]


def sampling(cell: Cell) -> Callable[[], list[float]]:
    """Graphs drawn per second, on one core."""
    n = 8192
    return single_threaded(lambda: [per_second(n, lambda: cell.task.sample(n, generator(0, "probe"))) for _ in range(4)][1:])


def reading(cell: Cell, path: Path, n_lines: int) -> Callable[[], list[float]]:
    """Lines of the authors' format parsed per second, on one core."""
    return single_threaded(lambda: [per_second(n_lines, lambda: list(read_batches(path, cell.task.n_values)))])


def writing(cell: Cell, n_lines: int) -> Callable[[], list[float]]:
    """Lines of the authors' format made per second, on one core."""
    batch = cell.task.sample(n_lines, generator(0, "probe"))
    return single_threaded(lambda: [per_second(n_lines, lambda: write_lines(cell.task, batch))])


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


def training(
    overrides: list[str], attention: str | None, n_steps: int, folder: Path, batch_size: int | None = 256
) -> Callable[[], list[float]]:
    """Samples per second of whole steps, through the trainer; the first step is left out unless it is the only one.

    A batch size of None is that of the preset.
    """
    size = [] if batch_size is None else [f"training.batch_size={batch_size}"]

    def measured() -> list[float]:
        config = resolve(compose([*overrides, *size, "training.log_every_steps=1"]))
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


def model_step(model: str, stock: bool = False) -> Callable[[], list[float]]:
    """Steps per second of forward and backward of 64 sequences of 32 tokens; ``stock``: on transformers' own functions."""
    cell = build(resolve(compose([f"model={model}", "task=g2_5", "training.precision=fp32", "training.device=cpu"])))
    tokens = torch.randint(0, cell.task.vocabulary.size, (64, 32), generator=generator(0, "probe"))

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


def decode(cell: Cell, procedure: Callable[..., Any], n_graphs: int) -> Callable[[], list[float]]:
    """Graphs answered per second, greedily."""
    prompt = cell.task.sample(n_graphs, generator(0, "probe")).prompt
    precision = cell.config.training.precision

    def run() -> None:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            procedure(cell.trunk, cell.objective, prompt, cell.task.target_length)

    return lambda: [per_second(n_graphs, run)]


# ------------------------------------------------------------------ the plan


def plan(quick: bool, folder: Path) -> list[Line]:
    """Every line, with its number of rounds."""
    tiny, mini = (build(resolve(compose([f"model={name}", "task=g2_5"]))) for name in ("gpt_tiny", "gpt_mini"))
    n_lines = 20_000 if quick else 100_000
    path = folder / "lines.txt"
    path.write_bytes(write_lines(tiny.task, tiny.task.sample(n_lines, generator(0, "probe"))))
    few = 1 if quick else 5
    train_tiny, train_mini = ["model=gpt_tiny", "task.test_graphs=1000"], ["model=gpt_mini", "task.test_graphs=1000"]
    mamba, mamba2 = (["task.test_graphs=1000", f"model={name}"] for name in ("mamba_tiny", "mamba2_tiny"))
    fp32 = [*train_tiny, "training.precision=fp32"]
    mini_rounds, mini_graphs, tiny_graphs = (1, 100, 1000) if quick else (3, 2000, 2000)
    return [
        Line("matmul/fp32_gflop_per_s", "GFLOP/s", matmul_peak(torch.float32), few),
        Line("matmul/bf16_gflop_per_s", "GFLOP/s", matmul_peak(torch.bfloat16), few),
        Line("data/graphs_per_s", "graphs/s, 1 core", sampling(tiny), few),
        Line("official_format/read_lines_per_s", "lines/s, 1 core", reading(tiny, path, n_lines), few),
        Line("official_format/write_lines_per_s", "lines/s, 1 core", writing(tiny, n_lines), few),
        Line("train/gpt_tiny/samples_per_s", "samples/s", training(train_tiny, None, 3 if quick else 7, folder), few),
        Line("train/gpt_tiny_fp32/samples_per_s", "samples/s", training(fp32, None, 2 if quick else 5, folder), few),
        Line("train/gpt_tiny_fp32_sdpa/samples_per_s", "samples/s", training(fp32, "sdpa", 2 if quick else 5, folder), few),
        Line("train/mamba_tiny/samples_per_s", "samples/s", training(mamba, None, 2 if quick else 4, folder), few),
        Line("train/mamba2_tiny/samples_per_s", "samples/s", training(mamba2, None, 2 if quick else 4, folder), few),
        Line("step/gpt_tiny/steps_per_s", "steps/s", model_step("gpt_tiny"), few),
        Line("step/mamba_tiny/steps_per_s", "steps/s", model_step("mamba_tiny"), few),
        Line("step/mamba2_tiny/steps_per_s", "steps/s", model_step("mamba2_tiny"), few),
        Line("step/mamba_tiny_stock/steps_per_s", "steps/s", model_step("mamba_tiny", stock=True), 1 if quick else 3),
        Line("step/mamba2_tiny_stock/steps_per_s", "steps/s", model_step("mamba2_tiny", stock=True), 1 if quick else 3),
        Line("train/gpt_mini/samples_per_s", "samples/s",
             training(train_mini, None, *((1, folder, 64) if quick else (2, folder))), mini_rounds),
        Line("decode/gpt_tiny/graphs_per_s", "graphs/s", decode(tiny, decoding.autoregressive, tiny_graphs), few),
        Line("decode/gpt_tiny_uncached/graphs_per_s", "graphs/s",
             decode(tiny, decoding.autoregressive_uncached, tiny_graphs // 2), few),
        Line("decode/gpt_mini/graphs_per_s", "graphs/s", decode(mini, decoding.autoregressive, mini_graphs), mini_rounds),
    ]  # fmt: skip


BENCH_TASKS = {"G(2,5)": "g2_5", "G(3,3)": "g3_3", "G(3,5)": "g3_5", "G(5,5)": "g5_5"}


def objective_lines(folder: Path) -> list[Line]:
    """Whole steps of every objective of the bench on each of its graphs, as it trains them."""
    bench = load_plan("objectives")
    names = dict.fromkeys(override.removeprefix("objective=") for cell in bench.cells for override in cell.overrides
                          if override.startswith("objective="))  # fmt: skip
    fixed = ["experiment=objectives", "task.n_values=21", "task.test_graphs=1000", "training.stop_metric=null",
             "training.decay_steps=1"]  # fmt: skip
    return [
        Line(f"{name} {graph}", "samples/s", training([*fixed, f"task={task}", f"objective={name}"], None, 4, folder, None), 5)
        for graph, task in BENCH_TASKS.items() for name in names
    ]  # fmt: skip


def step_times(lines: list[Line]) -> dict[str, Any]:
    """Time per step of each objective relative to next token on the same graph, and where that was measured."""
    rates = {line.name: line.median for line in lines}
    relative = {name: round(rates[f"next_token {name.split()[1]}"] / rate, 3) for name, rate in rates.items()}
    return {"relative": relative, "rounds": lines[0].rounds, "load": os.getloadavg()[0], **records.environment(ROOT)}


def derived(lines: dict[str, Line]) -> dict[str, float]:
    """Nominal GFLOP/s and shares of the measured peaks."""
    numbers = {}
    for model in ("gpt_tiny", "gpt_mini"):
        cell = build(resolve(compose([f"model={model}", "task=g2_5"])))
        tokens = cell.task.prompt_length + cell.task.target_length - 1
        flop = 6 * sum(p.numel() for p in cell.trunk.parameters()) * tokens
        gflops = lines[f"train/{model}/samples_per_s"].median * flop / 1e9
        numbers[f"train/{model}/gflop_per_s"] = gflops
        for kind in ("bf16", "fp32"):
            numbers[f"train/{model}/share_of_{kind}_peak"] = gflops / lines[f"matmul/{kind}_gflop_per_s"].median
    cached, uncached = (lines[f"decode/gpt_tiny{kind}/graphs_per_s"].median for kind in ("", "_uncached"))
    numbers["decode/gpt_tiny/cache_speed_up"] = cached / uncached
    for model in ("mamba_tiny", "mamba2_tiny"):
        mine = lines[f"step/{model}/steps_per_s"].median
        numbers[f"step/{model}/time_over_gpt_tiny"] = lines["step/gpt_tiny/steps_per_s"].median / mine
        numbers[f"step/{model}/speed_up_over_stock"] = mine / lines[f"step/{model}_stock/steps_per_s"].median
        trained = lines[f"train/{model}/samples_per_s"].median
        numbers[f"train/{model}/time_over_gpt_tiny"] = lines["train/gpt_tiny/samples_per_s"].median / trained
    matmul, sdpa = (lines[f"train/gpt_tiny_fp32{kind}/samples_per_s"].median for kind in ("", "_sdpa"))
    numbers["train/gpt_tiny_fp32/matmul_over_sdpa"] = matmul / sdpa
    return numbers


def main() -> None:
    """Measure round by round, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    quick = "one round, gpt_mini at batch 64, about 50 s; for a glance, not for a record"
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--json", metavar="FILE", help="one flat object of names and medians; - prints it")
    relative = "instead, time the steps of every objective relative to next token"
    parser.add_argument("--objectives", metavar="FILE", type=Path, help=relative)
    args = parser.parse_args()
    torch.set_num_threads(N_THREADS)
    with tempfile.TemporaryDirectory() as folder:
        lines = objective_lines(Path(folder)) if args.objectives else plan(args.quick, Path(folder))
        for i in range(max(line.rounds for line in lines)):
            for line in lines:
                if i < line.rounds:
                    line.run()
    if args.objectives:
        write_json(args.objectives, step_times(lines))
        return
    by_name = {line.name: line for line in lines}
    more = derived(by_name)
    numbers = {line.name: line.median for line in lines} | more
    numbers |= {line.name.rsplit("/", 1)[0] + "/peak_memory_mb": line.peak_mb for line in lines if "matmul" not in line.name}
    numbers["machine/load_1min"] = os.getloadavg()[0]
    precision = resolve(compose([])).training.precision
    if args.json:
        text = json.dumps({name: round(value, 4) for name, value in numbers.items()}, indent=1)
        print(text) if args.json == "-" else Path(args.json).write_text(text + "\n")
    if args.json != "-":
        console = Console() if sys.stdout.isatty() else Console(width=140)  # a log has no width to keep to
        console.print(table(lines, more, precision))


def table(lines: list[Line], more: dict[str, float], precision: str) -> Table:
    """Medians and ranges."""
    load = os.getloadavg()[0]
    shown = Table(title=f"{N_THREADS} threads, batch 256, G(2,5) N=50, training in {precision}; load {load:.1f}")
    for name in ("figure", "median", "lowest to highest", "unit", "peak memory, MB"):
        shown.add_column(name, justify="left" if name in ("figure", "unit") else "right", no_wrap=name == "figure")
    for line in lines:
        decimals = 0 if line.median >= 100 else 3
        median, lowest, highest = (f"{x:,.{decimals}f}" for x in (line.median, min(line.values), max(line.values)))
        shown.add_row(line.name, median, f"{lowest} to {highest}", line.unit, f"{line.peak_mb:,.0f}")
    for name, value in more.items():
        shown.add_row(name, f"{value:,.2f}", "", "", "")
    return shown


if __name__ == "__main__":

    exit_on_error(main)
