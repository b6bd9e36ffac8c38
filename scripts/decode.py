"""What every way of decoding makes of a finished run.

    python scripts/decode.py runs/RUN --graphs 2000

One line per strategy: graphs solved with a 95 % interval, what a model gets that guesses the arm, sequences read per graph and
graphs per second. Strategies: the objective's own procedures, transformers' decoding rules (sampling, penalties, beams) where the
method answers from next-token logits, and several samples with a verifier. The graphs are the run's test graphs.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pitfalls.experiment.cli import exit_on_error
from pitfalls.results.statistics import wilson
from pitfalls.schemas import ConfigError


def main() -> None:
    """Load, decode, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run with a checkpoint")
    parser.add_argument("--graphs", type=int, default=1000, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of what is sampled")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    draft = "another run of the same task, whose model drafts tokens for this one's to verify (one prompt at a time)"
    parser.add_argument("--assistant", type=Path, metavar="RUN", help=draft)
    args = parser.parse_args()
    from pitfalls.evaluation.strategies import measure
    from pitfalls.experiment.build import autocast, load_run, make_run_splits
    from pitfalls.training.device import prepare_process

    prepare_process(args.threads)
    run = load_run(args.run)
    test = make_run_splits(run).test
    if not 1 <= args.graphs <= len(test.prompt):
        raise ConfigError(f"--graphs {args.graphs}: from 1 to {len(test.prompt)}, the run's test graphs (task.test_graphs)")
    if len(run.objective.supervised()) < run.task.target_length:
        raise ConfigError(f"{args.run}: objective={run.config.objective.name} does not answer whole paths; take another run")
    graphs = test.rows(0, args.graphs).to(run.config.training.device)
    table = Table(title=f"{args.run.name}\n{run.task}, {args.graphs:,} test graphs")
    for name in ("strategy", "exact match", "95 %", "a guess of the arm", "sequences read", "graphs/s"):
        table.add_column(name, justify="left" if name == "strategy" else "right")
    assistant = load_run(args.assistant).trunk.lm if args.assistant else None
    with autocast(run.config):
        rows = measure(run.trunk, run.objective, graphs, run.task.degree, args.seed, assistant)
    for row in rows:
        low, high = wilson(row.solved.k, row.solved.n)
        shown = (f"{row.solved.share:.3f}", f"{low:.3f} to {high:.3f}", f"{row.cheat:.3f}", f"{row.passes:.2f}")
        table.add_row(row.name, *shown, f"{row.graphs_per_s:,.0f}")
    console = Console() if sys.stdout.isatty() else Console(width=120)  # a log has no width to keep to
    console.print(table)


if __name__ == "__main__":
    exit_on_error(main)
