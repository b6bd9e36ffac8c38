"""Probe a finished run again, or any causal language model: measure its behaviour beyond its accuracy.

    python scripts/probe.py runs/RUN --graphs 5000
    python scripts/probe.py FOLDER task=g2_5 objective=next_token      # output of save_pretrained, with its tokenizer

Prints one line per number. Each file of src/pitfalls/probes/ explains its probe. The graphs are the first test graphs, which
never occurred in the training of the run. With as many graphs as in its config (training.probe_graphs), the numbers are those
of its record. Nothing is trained or changed.
"""

import json
import time
from pathlib import Path

import msgspec

from pitfalls.experiment import answer_tables
from pitfalls.experiment.cli import Parser, console, exit_on_error, n_test_graphs, terminal_table


def main() -> None:
    """Parse, probe, print."""
    parser = Parser(__doc__)
    parser.add_argument("folder", metavar="RUN", type=Path, help="the folder of a run, or of a model in the hub's layout")
    parser.add_argument("overrides", nargs="*", help="for a model: task=..., objective=... and other keys of scripts/train.py")
    parser.add_test_graphs()
    parser.add_threads()
    parser.add_json()
    args = parser.parse_args()
    from pitfalls.experiment.evaluate_run import probe
    from pitfalls.experiment.loading import load_run_or_model
    from pitfalls.training.device import prepare_process

    prepare_process(args.threads)
    run = load_run_or_model(args.folder, args.overrides)
    n_graphs = n_test_graphs(args.graphs, run.config.task.test_graphs)
    started = time.monotonic()
    probes, absent = probe(run, n_graphs, args.folder)
    if args.json:
        found = {"probes": msgspec.to_builtins(probes), "absent": absent}
        print(json.dumps({"folder": args.folder.name, "graphs": n_graphs} | found))
        return
    seconds = time.monotonic() - started
    about = f"{run.task}, {n_graphs:,} test graphs, 1/d = {1 / run.task.degree:.3f} ({seconds:.0f} s)"
    console().print(terminal_table(answer_tables.probe_table(probes, absent, f"{args.folder.name}\n{about}")))


if __name__ == "__main__":
    exit_on_error(main)
