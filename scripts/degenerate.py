"""What autoregression does to a language model: repetition loops, entropy, and the decoding rules that change them.

    python scripts/degenerate.py model=smollm2               # the whole lab, about half an hour on two quiet cores
    python scripts/degenerate.py model=smollm2 --quick       # minutes: everything, too little of it for verdicts
    python scripts/degenerate.py model=smollm2 model.name=NAME model.source=FOLDER_OR_HUB_ID model.revision=COMMIT
    python scripts/degenerate.py --runs runs/RUN runs/RUN    # models of our own task: what they write past the goal

Any pretrained causal language model (conf/model/; README, Pretrained models), in fp32. What it does and how much of it is in
conf/degeneration/. Ctrl-C loses at most the part that is being measured; the same command goes on. The record, tables and
figures go to results/degeneration/NAME/ (of --quick: into the working folder).
"""

import argparse
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from pitfalls.experiment.cli import exit_on_error
from pitfalls.experiment.config import CONF, ROOT
from pitfalls.language import lab_figures
from pitfalls.language import lab_tables as report
from pitfalls.language.beliefs import judge_beliefs, read_beliefs
from pitfalls.results import formats
from pitfalls.results.formats import Table
from pitfalls.runs import run_folder
from pitfalls.runs.files import read_json, write_json
from pitfalls.runs.lock import RunLock
from pitfalls.schemas import ConfigError, PretrainedModelConfig

FOLDER = CONF / "degeneration"
PATH_STAR = "path_star.json"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("override", nargs="*", metavar="KEY=VALUE", help="model=PRESET, and keys of that preset")
    parser.add_argument("--runs", nargs="+", type=Path, metavar="RUN", help="finished runs with checkpoints, instead of a model")
    parser.add_argument("--graphs", type=int, default=1000, help="of --runs: test graphs of each")
    parser.add_argument("--quick", action="store_true", help="conf/degeneration/quick.yaml instead of full.yaml")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "runs", help="where the working folder is made")
    parser.add_argument("--results-dir", type=Path, default=ROOT / "results" / "degeneration", help="where the record goes")
    args = parser.parse_args()
    if args.threads < 1:
        parser.error(f"--threads {args.threads}: at least 1")
    if bool(args.override) == bool(args.runs):
        parser.error("give either model=PRESET or --runs RUN ...")
    if args.graphs < 1:
        parser.error(f"--graphs {args.graphs}: at least 1")
    for text in args.override:
        if not text.startswith(("model=", "model.")):
            parser.error(f"{text}: only the model is chosen here (model=PRESET, model.KEY=VALUE)")
    return args


def main() -> None:
    """Measure what is not measured yet, summarise, print."""
    args = arguments()
    if args.runs:
        path_star(args)
        return
    from pitfalls.experiment.hydra_app import compose
    from pitfalls.language.settings import read_plan

    model = compose(args.override).model
    if not isinstance(model, PretrainedModelConfig):
        raise ConfigError(f"model={model.name}: not pretrained: it has nothing to say; take model=smollm2")
    if any(text.startswith("model.source=") for text in args.override) and not any(
        text.startswith("model.name=") for text in args.override
    ):
        raise ConfigError(f"model.source={model.source}: it is not {model.name}; give it a name for its results, model.name=NAME")
    model = replace(model, dtype="fp32")
    plan = read_plan(FOLDER, "quick" if args.quick else "full")
    beliefs = read_beliefs(FOLDER / "claims.yaml")
    name = run_folder.run_id({"model": asdict(model), "plan": plan.digest()})
    folder = args.runs_dir / "degeneration" / f"{model.name}-{'quick' if args.quick else 'full'}-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    with RunLock(folder, 1):
        record = measured(model, plan, folder, args.threads)
    target = folder if args.quick else args.results_dir / model.name
    target.mkdir(parents=True, exist_ok=True)
    write_json(target / run_folder.RECORD, record)
    judgements = judge_beliefs(beliefs, record["measures"])
    tables = report.write(record, judgements, target)
    lab_figures.draw(record, target)
    console = Console() if sys.stdout.isatty() else Console(width=140)  # a log has no width to keep to
    for table in (tables["ledger"], tables["rules"]):
        console.print(shown(table))
    console.print(f"{target}: record.json; tables (md, csv, tex) and figures (png, svg)   ({record['wall_s']:.0f} s in all)")


def path_star(args: argparse.Namespace) -> None:
    """Measure runs of our own task; entries of other runs stay as they are."""
    from pitfalls.experiment.build import autocast, load_run, make_run_splits
    from pitfalls.language.past_the_goal import measure
    from pitfalls.training.device import prepare_process

    prepare_process(args.threads)
    file = args.results_dir / PATH_STAR
    file.parent.mkdir(parents=True, exist_ok=True)
    entries = {entry["run"]: entry for entry in (read_json(file, list[dict[str, Any]]) if file.exists() else [])}
    for run in args.runs:
        record, cell = run_folder.read_record(run), load_run(run)
        graphs = make_run_splits(cell).test.rows(0, args.graphs).to(cell.config.training.device)
        with autocast(cell.config):
            found = measure(cell.trunk, cell.objective, graphs, cell.task.n_values)
        probe = record["probes"]["forced_free"] or {}
        about = {
            "run": record["run"],
            "objective": cell.config.objective.name.replace("_", " "),
            "graph": str(cell.task),
            "seed": cell.config.seed,
            "samples": record["samples_seen"],
        }
        entries[record["run"]] = about | found | {name: probe.get(name) for name in ("forced", "after_right")}
        write_json(file, [entries[name] for name in sorted(entries)])  # a later run may be wrong
    table = report.path_star([entries[name] for name in sorted(entries)])
    formats.write(table, file.with_suffix(""))
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(shown(table))


def measured(model: PretrainedModelConfig, plan: Any, folder: Path, n_threads: int) -> dict[str, Any]:
    """The record of the lab."""
    from pitfalls.language.lab import Lab, describe
    from pitfalls.language.summary import summarise
    from pitfalls.models.pretrained import load_lm, load_tokenizer
    from pitfalls.training.device import prepare_process

    prepare_process(n_threads)
    started = time.monotonic()
    lm, tokenizer = load_lm(model), load_tokenizer(model)

    def log(line: str) -> None:
        print(f"{time.monotonic() - started:>6.0f} s  {line}", file=sys.stderr)

    lab = Lab(lm, tokenizer, plan, folder, log)
    parts = lab.run()
    source = {"name": model.name, "source": Path(model.source).name, "revision": model.revision}
    found = describe(lm, plan) | {"source": source, "wall_s": lab.seconds} | run_folder.environment(ROOT)
    return found | summarise(parts, plan, lambda ids: [tokenizer.decode([i]) for i in ids])


def shown(table: Table) -> Any:
    """For a terminal."""
    from rich.table import Table as Grid

    grid = Grid(title=table.title, caption=table.note)
    for name in table.header:
        grid.add_column(name, overflow="fold")
    for row in table.rows:
        grid.add_row(*row)
    return grid


if __name__ == "__main__":
    exit_on_error(main)
