"""Probe a finished run again, or any folder with a model: what it does, beside how often it is right.

    python scripts/probe.py runs/RUN --graphs 5000
    python scripts/probe.py FOLDER task=g2_5 objective=next_token      # what save_pretrained wrote, with its tokenizer

Prints a line per probe (``--json``: one JSON object, as a run's record holds it). Nothing is trained or changed. What each
probe measures stands in src/pitfalls/probes/. The graphs are the run's test graphs, which never occurred in its training; with as
many as its config says (training.probe_graphs), the numbers are those of its record.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.table import Table

from pitfalls.experiment.cli import exit_on_error
from pitfalls.experiment.hydra_app import compose
from pitfalls.results.statistics import wilson
from pitfalls.runs import run_folder
from pitfalls.runs.records import EvaluationRow
from pitfalls.schemas import ConfigError

if TYPE_CHECKING:
    from pitfalls.experiment.build import Run


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a run with a checkpoint, or a model in the hub's layout")
    parser.add_argument("overrides", nargs="*", help="for a model: what scripts/train.py takes, task=... and objective=...")
    parser.add_argument("--graphs", type=int, default=1000, help="how many")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def main() -> None:
    """Load, probe, print."""
    args = arguments()
    if args.graphs < 1:
        raise ConfigError(f"--graphs {args.graphs}: at least 1")
    from pitfalls.evaluation.score import evaluate
    from pitfalls.experiment.build import autocast, make_run_splits
    from pitfalls.probes import ProbedModel, run_probes
    from pitfalls.training.device import prepare_process

    prepare_process(args.threads)
    run = load(args.folder, args.overrides)
    started = time.monotonic()
    splits, device = make_run_splits(run), run.config.training.device
    if args.graphs > len(splits.test.prompt):
        raise ConfigError(f"--graphs {args.graphs}: there are {len(splits.test.prompt)} test graphs (task.test_graphs)")
    graphs, train = splits.test.rows(0, args.graphs).to(device), splits.train.all_rows()
    with autocast(run.config):
        evaluations = {"test": evaluate(run.trunk, run.objective, run.task, graphs)}
        if train is not None:
            evaluations["train"] = evaluate(run.trunk, run.objective, run.task, train.to(device))
        curve = [row for row in run_folder.read_metrics(args.folder) if isinstance(row, EvaluationRow)]
        probed = ProbedModel(run.trunk.eval(), run.objective, run.task, graphs, run.config.seed, evaluations, curve)
        found = run_probes(probed)
    if args.json:
        print(json.dumps({"folder": args.folder.name, "graphs": args.graphs, "probes": msgspec.to_builtins(found)}))
        return
    console = Console() if sys.stdout.isatty() else Console(width=120)  # a log has no width to keep to
    seconds = time.monotonic() - started
    about = f"{run.task}, {args.graphs} test graphs, 1/d = {1 / run.task.degree:.3f} ({seconds:.0f} s)"
    console.print(as_table(msgspec.to_builtins(found), f"{args.folder.name}\n{about}"))


def load(folder: Path, overrides: list[str]) -> "Run":
    """The objects of a run folder, or of a model's folder with the task and objective of a command line."""
    from pitfalls.experiment.build import build, load_run
    from pitfalls.experiment.config import resolve

    if (folder / run_folder.CONFIG).exists():
        if overrides:
            raise ConfigError(f"{overrides[0]}: {folder} is a run and brings its own config; leave the overrides out")
        return load_run(folder)
    if not (folder / "config.json").exists():
        raise ConfigError(f"{folder}: neither a run ({run_folder.CONFIG}) nor a model in the hub's layout (config.json)")
    if not any(override.startswith("task") for override in overrides):
        raise ConfigError(f"{folder} is a model: say which graphs it is to answer, for example task=g2_5")
    source = ["model=gpt2", f"model.name={folder.name}", f"model.source={folder}", "model.revision=null"]
    return build(resolve(compose([*source, *overrides])))


def as_table(found: dict[str, dict[str, Any] | None], title: str) -> Table:
    """One line per number; a list has one per target position."""
    table = Table(title=title)
    for name in ("probe", "what", "value", "of"):
        table.add_column(name, justify="left" if name in ("probe", "what") else "right")
    for probe, result in found.items():
        lines = [("does not apply to this method", "", "")] if result is None else flatten(result)
        for i, line in enumerate(lines):
            table.add_row("" if i else probe.replace("_", " "), *line)
    return table


def flatten(result: dict[str, Any], prefix: str = "") -> list[tuple[str, str, str]]:
    """Names, values and sizes."""
    lines: list[tuple[str, str, str]] = []
    for name, value in result.items():
        what = f"{prefix} {name}".strip().replace("_", " ")
        if isinstance(value, dict) and "k" not in value:
            lines += flatten(value, what)
        elif isinstance(value, list):
            shown, sizes = zip(*(cell_of(x) for x in value), strict=True)
            lines.append((f"{what}, start to goal", "  ".join(shown), " ".join(dict.fromkeys(sizes))))
        else:
            shown_one, size = cell_of(value)
            if isinstance(value, dict) and value["n"]:
                low, high = wilson(value["k"], value["n"])
                shown_one += f"  [{low:.3f}, {high:.3f}]"
            lines.append((what, shown_one, size))
    return lines


def cell_of(value: Any) -> tuple[str, str]:
    """One number as text, and what it is of."""
    if value is None:
        return "-", ""
    if isinstance(value, dict) and "k" in value:
        return (f"{value['k'] / value['n']:.3f}" if value["n"] else "-"), f"{value['n']:,}"
    if isinstance(value, dict):
        return f"{value['sum'] / value['n']:.3f} nats", f"{value['n']:,}"
    return (f"{value:,}" if isinstance(value, int) else f"{value:.3f}"), ""


if __name__ == "__main__":
    exit_on_error(main)
