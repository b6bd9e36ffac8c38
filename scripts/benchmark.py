"""Time what a user runs, on this machine: ``python scripts/benchmark.py [--quick] [--json -]``.

Every line is the median of several rounds with its range (with ``--quick``: of one); the rounds of all lines are
interleaved, so a machine that is busy for a while slows all of them. ``train/`` lines are whole steps: data, forward, loss,
backward, optimizer, log line; ``plain`` is transformers' own model in its usual loop; with ``both_goals`` two rows share a graph,
whose edges are read once (``task.targets_per_graph=2``). GFLOP/s are nominal: 6 x parameters x all
tokens, prompt included. ``part/`` lines take a step apart. ``step/`` lines are forward and backward of 64 sequences of 32
tokens in fp32: the Mambas with our CPU functions, with transformers' own, and a GPT-2 of the same width and depth. Peak memory
is what a line takes beyond what the process held before it. Not yet run on a GPU.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

N_THREADS = min(2, os.cpu_count() or 1)
os.environ.setdefault("OMP_NUM_THREADS", str(N_THREADS))

import torch  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from pitfalls import decoding  # noqa: E402
from pitfalls.application import compose  # noqa: E402
from pitfalls.benchmark import components, data, machine, roofline, scaling  # noqa: E402
from pitfalls.benchmark.decoding import answering  # noqa: E402
from pitfalls.benchmark.lines import Line, Measure, interleave  # noqa: E402
from pitfalls.benchmark.objectives import objective_lines, relative_times  # noqa: E402
from pitfalls.benchmark.plain import plain_steps  # noqa: E402
from pitfalls.benchmark.training import model_step, whole_steps  # noqa: E402
from pitfalls.cell import Cell, build  # noqa: E402
from pitfalls.command_line import exit_on_error  # noqa: E402
from pitfalls.configs import resolve  # noqa: E402
from pitfalls.plain_files import write_json  # noqa: E402
from pitfalls.training.device import prepare_process  # noqa: E402

BATCH_SIZE = 256
FIXED = ("task=g2_5", "task.test_graphs=1000")
FP32 = "training.precision=fp32"
MAMBAS = ("mamba_tiny", "mamba2_tiny")


def overrides(model: str, *others: str) -> list[str]:
    """G(2,5), N=50, next token."""
    return [*FIXED, f"model={model}", f"training.batch_size={BATCH_SIZE}", *others]


def cell_of(model: str, *others: str) -> Cell:
    """The same, built."""
    return build(resolve(compose(overrides(model, *others))))


def plan(quick: bool, folder: Path) -> list[Line]:
    """Every line, with its number of rounds; a quick plan leaves out the slowest references."""
    few, slow = (1, 1) if quick else (5, 3)
    tiny, mini = cell_of("gpt_tiny"), cell_of("gpt_mini")
    n_lines = 20_000 if quick else 100_000

    def train(n_steps: int, model: str, *others: str, attention: str | None = None) -> Measure:
        return whole_steps(overrides(model, *others), n_steps, folder, attention)

    def samples(name: str, measure: Measure, rounds: int = few) -> Line:
        return Line(f"train/{name}/samples_per_s", "samples/s", measure, rounds)

    def steps(name: str, stock: bool = False) -> Line:
        return Line(f"step/{name}{'_stock' * stock}/steps_per_s", "steps/s", model_step(name, stock), slow if stock else few)

    def answers(name: str, cell: Cell, how: str, n_graphs: int, rounds: int = few) -> Line:
        return Line(f"decode/{name}/graphs_per_s", "graphs/s", answering(cell, getattr(decoding, how), n_graphs), rounds)

    n_steps = 2 if quick else 4
    plain = cell_of("gpt_tiny", FP32)
    apart = [
        Line(f"part/{part.name}/seconds_per_step", "s", components.seconds_per_step(plain, part), few)
        for part in components.parts(plain)
    ]
    references = [] if quick else [
        samples("gpt_mini_plain_sdpa", plain_steps(mini, "sdpa", 64, 2), slow),
        answers("gpt_mini_uncached", mini, "autoregressive_uncached", 250, slow),
        answers("gpt_mini_uncached_fp32", cell_of("gpt_mini", FP32), "autoregressive_uncached", 250, slow),
        *(steps(name, stock=True) for name in MAMBAS),
    ]  # fmt: skip
    return [
        Line("machine/fp32_gflop_per_s", "GFLOP/s", machine.matmul_peak(torch.float32), few),
        Line("machine/bf16_gflop_per_s", "GFLOP/s", machine.matmul_peak(torch.bfloat16), few),
        Line("machine/copy_gb_per_s", "GB/s", machine.bandwidth(), few),
        Line("data/graphs_per_s", "graphs/s, 1 core", data.sampling(tiny.task), few),
        Line("official_format/read_lines_per_s", "lines/s, 1 core", data.reading(tiny.task, folder / "lines.txt", n_lines), few),
        Line("official_format/write_lines_per_s", "lines/s, 1 core", data.writing(tiny.task, n_lines), few),
        samples("gpt_tiny", train(n_steps + 1, "gpt_tiny")),
        samples("gpt_tiny_both_goals", train(n_steps + 1, "gpt_tiny", "task.targets_per_graph=2")),
        samples("gpt_tiny_fp32", train(n_steps, "gpt_tiny", FP32)),
        samples("gpt_tiny_fp32_sdpa", train(n_steps, "gpt_tiny", FP32, attention="sdpa")),
        samples("gpt_tiny_plain_eager", plain_steps(plain, "eager", BATCH_SIZE, n_steps)),
        samples("gpt_tiny_plain_sdpa", plain_steps(plain, "sdpa", BATCH_SIZE, n_steps)),
        *(samples(name, train(n_steps, name)) for name in MAMBAS),
        *apart,
        *(steps(name) for name in ("gpt_tiny", *MAMBAS)),
        samples("gpt_mini", train(1, "gpt_mini", "training.batch_size=64") if quick else train(2, "gpt_mini"), slow),
        answers("gpt_tiny", tiny, "autoregressive", 1000 if quick else 2000),
        answers("gpt_tiny_uncached", tiny, "autoregressive_uncached", 500),
        answers("gpt_mini", mini, "autoregressive", 100 if quick else 2000, slow),
        *references,
    ]


def derived(lines: dict[str, Line]) -> dict[str, float]:
    """Nominal GFLOP/s, shares of the measured peaks, ratios, and the shares of a step."""
    numbers = {}
    for model in ("gpt_tiny", "gpt_mini"):
        cell = cell_of(model)
        tokens = cell.task.prompt_length + cell.task.target_length - 1
        flop = 6 * sum(p.numel() for p in cell.trunk.parameters()) * tokens
        gflops = lines[f"train/{model}/samples_per_s"].median * flop / 1e9
        numbers[f"train/{model}/gflop_per_s"] = gflops
        for kind in ("bf16", "fp32"):
            numbers[f"train/{model}/share_of_{kind}_peak"] = gflops / lines[f"machine/{kind}_gflop_per_s"].median
        answered = lines[f"decode/{model}/graphs_per_s"].median * flop / 3 / 1e9  # the forward pass alone
        numbers[f"decode/{model}/share_of_bf16_peak"] = answered / lines["machine/bf16_gflop_per_s"].median
    for new, fast, slow in (
        ("decode/gpt_tiny/cache_speed_up", "decode/gpt_tiny/graphs", "decode/gpt_tiny_uncached/graphs"),
        ("decode/gpt_mini/cache_speed_up", "decode/gpt_mini/graphs", "decode/gpt_mini_uncached/graphs"),
        ("decode/gpt_mini/speed_up_over_uncached_fp32", "decode/gpt_mini/graphs", "decode/gpt_mini_uncached_fp32/graphs"),
        ("train/gpt_tiny_fp32/matmul_over_sdpa", "train/gpt_tiny_fp32/samples", "train/gpt_tiny_fp32_sdpa/samples"),
        ("train/gpt_tiny/speed_up_over_plain_eager", "train/gpt_tiny/samples", "train/gpt_tiny_plain_eager/samples"),
        ("train/gpt_tiny/speed_up_over_plain_sdpa", "train/gpt_tiny/samples", "train/gpt_tiny_plain_sdpa/samples"),
        *((f"train/gpt_tiny_both_goals/speed_up_over_{side}", "train/gpt_tiny_both_goals/samples", f"train/{line}/samples")
          for side, line in (("plain_sdpa", "gpt_tiny_plain_sdpa"), ("one_goal", "gpt_tiny"))),
        ("train/gpt_mini/speed_up_over_plain_sdpa", "train/gpt_mini/samples", "train/gpt_mini_plain_sdpa/samples"),
        *((f"step/{name}/time_over_gpt_tiny", "step/gpt_tiny/steps", f"step/{name}/steps") for name in MAMBAS),
        *((f"train/{name}/time_over_gpt_tiny", "train/gpt_tiny/samples", f"train/{name}/samples") for name in MAMBAS),
        *((f"step/{name}/speed_up_over_stock", f"step/{name}/steps", f"step/{name}_stock/steps") for name in MAMBAS),
    ):
        if f"{slow}_per_s" in lines:
            numbers[new] = lines[f"{fast}_per_s"].median / lines[f"{slow}_per_s"].median
    step_s = BATCH_SIZE / lines["train/gpt_tiny_fp32/samples_per_s"].median
    parts = [(line.name.split("/")[1], line.median) for line in lines.values() if line.name.startswith("part/")]
    return numbers | {f"part/{name}/share": share for name, share in components.shares(parts, step_s).items()}


def main() -> None:
    """Measure round by round, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    quick = "one round, gpt_mini at batch 64, no stock Mambas; for a glance, not for a record"
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--json", metavar="FILE", help="one flat object of names and medians; - prints it")
    relative = "instead, time the steps of every objective relative to next token"
    parser.add_argument("--objectives", metavar="FILE", type=Path, help=relative)
    growth = "instead, measure how time and memory of a step grow with graph, batch and model"
    parser.add_argument("--scaling", metavar="FILE", type=Path, help=growth)
    paper = "instead, estimate on paper what one H100 would do with the models from scratch and GPT-2 large; nothing is timed"
    parser.add_argument("--roofline", action="store_true", help=paper)
    args = parser.parse_args()
    prepare_process(N_THREADS)
    if args.roofline:
        _console().print(on_paper(roofline.on_paper(roofline.H100)))
        return
    with tempfile.TemporaryDirectory() as folder:
        if args.scaling:
            write_json(args.scaling, scaling.measure(Path(folder)))
            return
        lines = objective_lines(Path(folder)) if args.objectives else plan(args.quick, Path(folder))
        interleave(lines)
    if args.objectives:
        write_json(args.objectives, relative_times(lines))
        return
    more = derived({line.name: line for line in lines})
    numbers = {line.name: line.median for line in lines} | more
    of_memory = [line for line in lines if not line.name.startswith(("machine/", "part/"))]
    numbers |= {line.name.rsplit("/", 1)[0] + "/peak_memory_mb": line.peak_mb for line in of_memory}
    numbers["machine/load_1min"] = os.getloadavg()[0]
    if args.json:
        text = json.dumps({name: round(value, 4) for name, value in numbers.items()}, indent=1)
        print(text) if args.json == "-" else Path(args.json).write_text(text + "\n")
    if args.json != "-":
        _console().print(table(lines, more, resolve(compose([])).training.precision))


def table(lines: list[Line], more: dict[str, float], precision: str) -> Table:
    """Medians and ranges."""
    load = os.getloadavg()[0]
    shown = Table(title=f"{N_THREADS} threads, batch {BATCH_SIZE}, G(2,5) N=50, training in {precision}; load {load:.1f}")
    for name in ("figure", "median", "lowest to highest", "unit", "peak memory, MB"):
        shown.add_column(name, justify="left" if name in ("figure", "unit") else "right", no_wrap=name == "figure")
    for line in lines:
        decimals = 0 if line.median >= 100 else 3
        median, lowest, highest = (f"{x:,.{decimals}f}" for x in (line.median, min(line.values), max(line.values)))
        shown.add_row(line.name, median, f"{lowest} to {highest}", line.unit, f"{line.peak_mb:,.0f}")
    for name, value in more.items():
        shown.add_row(name, f"{value:,.2f}", "", "", "")
    return shown


def on_paper(rows: list[roofline.Row]) -> Table:
    """The estimates of every model and graph."""
    gpu = roofline.H100
    shown = Table(title=f"on paper, nothing was run: {gpu.name}, {gpu.flop_per_s / 1e12:.0f} TFLOP/s, "
                        f"{gpu.bytes_per_s / 1e12:.2f} TB/s, {gpu.launch_s * 1e6:.0f} us a launch; N=100")  # fmt: skip
    for name in ("model", "graph", "batch", "operations", "samples/s", "MFU", "samples/s, one CUDA graph", "MFU",
                 "hours of a run"):  # fmt: skip
        shown.add_column(name, justify="left" if name in ("model", "graph") else "right")
    for row in rows:
        rates = (f"{value:{form}}" for estimate in (row.launched, row.graphed)
                 for value, form in ((estimate.samples_per_s, ",.0f"), (estimate.mfu, ".1%")))  # fmt: skip
        shown.add_row(row.model, row.graph, f"{row.batch_size}", f"{row.n_operations:,}", *rates, f"{row.run_hours:.2g}")
    return shown


def _console() -> Console:
    """As wide as the terminal; a log has no width to keep to."""
    return Console() if sys.stdout.isatty() else Console(width=140)


if __name__ == "__main__":
    exit_on_error(main)
