"""Score a finished run on a file of the authors' format, or on fresh graphs.

    python scripts/evaluate.py runs/RUN --data deg_2_path_5_nodes_50_test_20000.txt
    python scripts/evaluate.py runs/RUN --graphs 20000 --seed 1

Prints counts with 95 % Wilson intervals; ``--json`` prints one JSON object instead. Nothing is trained or changed.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console
from rich.table import Table

from pitfalls.experiment.cli import exit_on_error
from pitfalls.results.statistics import wilson
from pitfalls.schemas import ConfigError

if TYPE_CHECKING:
    from pitfalls.experiment.build import Run
    from pitfalls.runs.records import Count, Evaluation
    from pitfalls.tasks.batch import Batch


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path, help="the folder of a run, with a checkpoint")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="a file of lines a,b|...|y,z/start,goal=start,...,goal")
    source.add_argument("--graphs", type=int, help="draw this many new graphs, none of them from a fixed training set")
    parser.add_argument("--seed", type=int, default=0, help="of --graphs")
    parser.add_argument("--decoder", help="a decoding procedure of the objective (default: its own)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def main() -> None:
    """Load, score, print."""
    args = arguments()
    if args.graphs is not None and args.graphs < 1:
        raise ConfigError(f"--graphs {args.graphs}: at least 1")
    from pitfalls.evaluation.score import evaluate
    from pitfalls.experiment.build import autocast, load_run, new_graphs
    from pitfalls.training.device import prepare_process

    prepare_process(args.threads)
    run = load_run(args.run_dir)
    batches = file_batches(run, args.data) if args.data else iter([new_graphs(run, args.graphs, args.seed)])
    started = time.monotonic()
    total: Evaluation | None = None
    for batch in batches:
        with autocast(run.config):
            rows = batch.to(run.config.training.device)
            part = evaluate(run.trunk, run.objective, run.task, rows, procedure=args.decoder)
        total = part if total is None else total + part
    assert total is not None
    seconds = time.monotonic() - started
    if args.json:
        print(json.dumps({"run": args.run_dir.name, "seconds": round(seconds, 2), "evaluation": msgspec.to_builtins(total)}))
    else:
        source = args.data.name if args.data else f"{args.graphs} fresh graphs"
        Console().print(as_table(total, f"{args.run_dir.name}\non {source} ({seconds:.0f} s)"))


def file_batches(run: "Run", path: Path) -> "Iterator[Batch]":
    """The rows of a file, in chunks; its graphs must have the shape that the run was trained on."""
    from pitfalls.tasks.official_format import infer_shape, read_batches

    shape = infer_shape(path)
    if shape != (run.task.degree, run.task.path_length):
        raise ConfigError(f"{path} holds G({shape[0]},{shape[1]}); the run was trained on {run.task}: take a run of that graph")
    return read_batches(path, run.task.n_values)


def as_table(evaluation: "Evaluation", title: str) -> Table:
    """Every count with its share and interval."""
    table = Table(title=title)
    for name in ("what", "share", "95 % interval", "k of n"):
        table.add_column(name, justify="left" if name == "what" else "right")
    for name in ("exact_match", "first_hop", "right_arm", "wrong_arm", "wrong_arm_then_goal", "broken_walk"):
        table.add_row(name.replace("_", " "), *_cells(getattr(evaluation, name)))
    for i, (free, forced) in enumerate(zip(evaluation.free_position_accuracy, evaluation.forced_position_accuracy, strict=True)):
        table.add_row(f"position {i}, free ({evaluation.decoder})", *_cells(free))
        table.add_row(f"position {i}, forced", *_cells(forced))
    return table


def _cells(count: "Count") -> tuple[str, str, str]:
    if not count.n:
        return "-", "-", "not answered"
    low, high = wilson(count.k, count.n)
    return f"{count.k / count.n:.4f}", f"{low:.4f} to {high:.4f}", f"{count.k} of {count.n}"


if __name__ == "__main__":
    exit_on_error(main)
