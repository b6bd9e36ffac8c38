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
from collections.abc import Mapping
from pathlib import Path

N_THREADS = min(2, os.cpu_count() or 1)
os.environ.setdefault("OMP_NUM_THREADS", str(N_THREADS))

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from benchmarks.objective_speed import objective_lines, relative_times  # noqa: E402
from benchmarks.timing import interleave  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the folder benchmarks/ is not installed
from benchmarks import gpu_roofline, step_scaling, suite  # noqa: E402
from pitfalls.experiment.cli import exit_on_error  # noqa: E402
from pitfalls.report import speed  # noqa: E402
from pitfalls.report.roofline_table import tables as roofline_tables  # noqa: E402
from pitfalls.results import formats  # noqa: E402
from pitfalls.runs.files import write_json  # noqa: E402
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
    parser.add_argument("--roofline", metavar="FILE", type=Path, help=paper)
    args = parser.parse_args()
    prepare_process(N_THREADS)
    if args.roofline:
        write_json(args.roofline, estimated := gpu_roofline.on_paper(gpu_roofline.H100))
        show(roofline_tables(estimated))
        return
    with tempfile.TemporaryDirectory() as folder:
        if args.scaling:
            write_json(args.scaling, step_scaling.measure(Path(folder)))
        elif args.objectives:
            lines = objective_lines(Path(folder))
            interleave(lines)
            write_json(args.objectives, relative_times(lines))
        else:
            record = suite.measure(args.quick, Path(folder))
            if args.json == "-":
                print(json.dumps(record, indent=1))
                return
            if args.json:
                write_json(Path(args.json), record)
            show(speed.tables(record))


def show(tables: Mapping[str, formats.Table]) -> None:
    """On the terminal."""
    for made in tables.values():
        shown = Table(title=made.title, caption=made.note, caption_justify="left")
        for name in made.header:
            shown.add_column(name, justify="left" if name in LEFT else "right")
        for row in made.rows:
            shown.add_row(*row)
        _console().print(shown)


LEFT = {"goal", "asked", "verdict", "ratio", "line", "unit", "part", "model", "graph"}


def _console() -> Console:
    """As wide as the terminal; a log has no width to keep to."""
    return Console() if sys.stdout.isatty() else Console(width=140)


if __name__ == "__main__":
    exit_on_error(main)
