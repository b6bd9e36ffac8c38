"""Time what a user runs, on this machine: ``python scripts/benchmark.py [--quick] [--json FILE]``.

Every line is the median of several rounds with its range (with ``--quick``: of one); the rounds of all lines are
interleaved, so a machine that is busy for a while slows all of them, and ratios are taken within a round. What the lines are is
said under the tables. ``make report`` makes the tables of results/benchmark/MACHINE/ from the measured.json that ``--json``
writes there. Not yet run on a GPU.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

N_THREADS = min(2, os.cpu_count() or 1)
os.environ.setdefault("OMP_NUM_THREADS", str(N_THREADS))

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from pitfalls.benchmark import roofline, scaling, suite  # noqa: E402
from pitfalls.benchmark.lines import interleave  # noqa: E402
from pitfalls.benchmark.objectives import objective_lines, relative_times  # noqa: E402
from pitfalls.command_line import exit_on_error  # noqa: E402
from pitfalls.plain_files import write_json  # noqa: E402
from pitfalls.report import speed  # noqa: E402
from pitfalls.training.device import prepare_process  # noqa: E402


def main() -> None:
    """Measure round by round, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    quick = "one round, gpt_mini at batch 64, the slowest references left out; for a glance, not for a record"
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--json", metavar="FILE", help="write every value of every round, and where it was measured; - prints it")
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
        elif args.objectives:
            lines = objective_lines(Path(folder))
            interleave(lines)
            write_json(args.objectives, relative_times(lines))
        else:
            show(suite.measure(args.quick, Path(folder)), args.json)


def show(record: dict[str, object], file: str | None) -> None:
    """The record as JSON, if asked for, and as tables."""
    if file == "-":
        print(json.dumps(record, indent=1))
        return
    if file:
        write_json(Path(file), record)
    for made in speed.tables(record).values():
        shown = Table(title=made.title, caption=made.note, caption_justify="left")
        for name in made.header:
            shown.add_column(name, justify="right" if name in RIGHT else "left")
        for row in made.rows:
            shown.add_row(*row)
        _console().print(shown)


RIGHT = {"median", "lowest to highest", "forward, ms", "backward, ms", "share", "peak memory, MB"}


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
