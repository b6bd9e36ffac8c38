"""Measure the speed of this code on this machine.

    python scripts/benchmark.py [speed|objectives|scaling|roofline|race] [--quick] [--output FILE] [--json]

speed       training, answering, drawing graphs and start-up, compared with transformers alone (ten minutes; --quick: one)
objectives  time per step of every objective, relative to next token
scaling     how time and memory of a training step grow with graph, batch and model
roofline    the best possible speed of one H100, estimated on paper
race        samples until the lookups are learned, by trunk and optimizer (two hours; the runs are those of reproduce.py race)

Values are medians of several rounds. The rounds of all measurements are interleaved, and ratios are taken within a round, so that
a machine that is busy for a while slows both sides. What a machine only emulates is left out and named. ``make report`` makes
tables of results/benchmark/MACHINE/measured.json, results/objectives/step_times.json, results/scaling/measured.json and
results/roofline/estimated.json.
"""

import json
import sys
from pathlib import Path

import msgspec

from pitfalls.experiment.cli import Parser, exit_on_error
from pitfalls.runs.files import write_json

# benchmarks/ is not installed with the package: Python finds it in the folder above this one, from any working directory
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
KINDS = ("speed", "objectives", "scaling", "roofline", "race")


def main() -> None:
    """Check the options, measure, write, print."""
    parser = Parser(__doc__)
    parser.add_argument("kind", nargs="?", choices=KINDS, default="speed", help="what to measure (default: speed)")
    quick = "of speed: the rounds that fit in a minute, gpt_mini at batch 64, no slow references; not for a record"
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--output", metavar="FILE", type=Path, help="write every value of every round to this JSON file")
    parser.add_json()
    parser.add_threads()
    args = parser.parse_args()
    from benchmarks import commands

    commands.check_options(args.kind, args.quick, args.output)
    if args.kind == "race":
        sys.exit(commands.race())
    measured = commands.measure(args.kind, args.quick, args.threads)
    if args.output:
        write_json(args.output, measured)
    if args.json:
        print(json.dumps(msgspec.to_builtins(measured), indent=1))
    else:
        commands.show(commands.tables(measured))


if __name__ == "__main__":
    exit_on_error(main)
