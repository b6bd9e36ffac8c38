"""Measure how a language model degenerates when it generates text: repetition loops, entropy, and the effect of decoding rules.

    python scripts/degenerate.py model=smollm2               # the whole lab, about half an hour on two quiet cores
    python scripts/degenerate.py model=smollm2 --quick       # minutes: all measurements, too few values for verdicts
    python scripts/degenerate.py model=smollm2 model.name=NAME model.source=FOLDER_OR_HUB_ID model.revision=COMMIT
    python scripts/degenerate.py --runs runs/RUN runs/RUN    # path-star models: the tokens after the goal

The model is any pretrained causal language model (conf/model/), in fp32. The files of
conf/degeneration/ set what is measured. Ctrl-C loses at most the current measurement, and the same command continues. Record,
tables and figures go to runs/degeneration/, and with --keep to results/degeneration/.
"""

import sys
from functools import partial
from pathlib import Path

from pitfalls.experiment import degeneration_lab
from pitfalls.experiment.cli import Parser, check_folders, console, exit_on_error, n_test_graphs, terminal_table
from pitfalls.experiment.config import ROOT, load_config


def main() -> None:
    """Parse, measure whatever is still missing, print."""
    parser = Parser(__doc__)
    parser.add_argument("override", nargs="*", metavar="KEY=VALUE", help="model=PRESET, and keys of that preset")
    parser.add_argument("--runs", nargs="+", type=Path, metavar="RUN", help="finished runs with checkpoints, instead of a model")
    parser.add_test_graphs("of --runs: number of test graphs of each")
    parser.add_argument("--quick", action="store_true", help="a small lab that takes minutes (conf/degeneration/quick.yaml)")
    parser.add_threads()
    parser.add_runs_dir(ROOT / "runs")
    parser.add_results_dir(ROOT / "results")
    parser.add_argument("--keep", action="store_true", help="write record, tables and figures into the results folder")
    args = parser.parse_args()
    if bool(args.override) == bool(args.runs):
        parser.error("model=PRESET or --runs RUN: give one of the two, and not both")
    if args.quick and args.keep:
        parser.error("--quick --keep: too little is measured to be kept; leave one of them out")
    check_folders(args.runs_dir, args.results_dir, keep=args.keep)
    n_graphs = n_test_graphs(args.graphs, min((load_config(run).task.test_graphs for run in args.runs or ()), default=0))
    from pitfalls.training.device import prepare_process

    prepare_process(args.threads)
    if args.runs:
        folder = (args.results_dir if args.keep else args.runs_dir) / "degeneration"
        tables = [degeneration_lab.past_goal_of_runs(args.runs, n_graphs, folder)]
    else:
        model, log = degeneration_lab.lab_model(args.override), partial(print, file=sys.stderr)
        lab = degeneration_lab.run_lab(model, "quick" if args.quick else "full", args.runs_dir, log)
        tables, folder = [lab.tables["ledger"], lab.tables["rules"]], lab.folder
        if args.keep:
            folder = args.results_dir / "degeneration" / model.name
            degeneration_lab.write_lab(lab.record, folder)
    for table in tables:
        console().print(terminal_table(table))
    print(f"{folder}: record, tables (md, csv, tex) and figures")


if __name__ == "__main__":
    exit_on_error(main, continues=True)
