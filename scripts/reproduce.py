"""Train a named set of runs, make its table and figures, and compare it with the committed results.

    python scripts/reproduce.py laptop --dry-run      list the runs, their samples, and the time that the committed runs took
    python scripts/reproduce.py laptop
    python scripts/reproduce.py laptop --keep         the same, and the results replace the committed ones

The sets are in conf/reproduce.yaml. Records, table and figures go to RUNS_DIR/results/NAME. With --keep they go to
RESULTS_DIR/NAME. Ctrl-C saves every run, and the same command continues. The exit status is 1 if a run failed or does not
meet the expectations of the set.
"""

import os
import sys

from pitfalls.experiment import run_set_tables, run_sets
from pitfalls.experiment.cli import Parser, check_folders, console, exit_on_error, integer
from pitfalls.experiment.config import ROOT
from pitfalls.experiment.run_set_display import make_display


def main() -> None:
    """Parse, train, collect, compare."""
    parser = Parser(__doc__)
    parser.add_argument("name", metavar="NAME", nargs="?", default="laptop", help="a set of runs (default: laptop)")
    parser.add_argument("--dry-run", action="store_true", help="list the runs and train nothing")
    cores = os.cpu_count() or 1
    parser.add_argument("--workers", metavar="N", type=integer(1), default=cores, help="runs at a time (default: one per core)")
    parser.add_argument("--only", metavar="N", type=integer(0), help="train and collect only run N (from 0), for job arrays")
    parser.add_argument("--smoke", action="store_true", help="a trial with few steps per run, to results/smoke_NAME")
    parser.add_runs_dir(ROOT / "runs")
    parser.add_results_dir(ROOT / "results")
    parser.add_argument("--keep", action="store_true", help="write the results to RESULTS_DIR/NAME")
    args = parser.parse_args()
    if args.smoke and args.keep:
        parser.error("--smoke --keep: the numbers of a smoke run prove nothing, so they are not kept; leave one of them out")
    check_folders(args.runs_dir, args.results_dir, keep=args.keep)
    plan, kept = run_sets.load_plan(args.name), args.results_dir / args.name
    runs = run_sets.plan_runs(plan, args.runs_dir, kept, smoke=args.smoke, only=args.only)
    if args.dry_run:
        console().print(*run_set_tables.before(plan, runs, args.workers, args.only or 0), sep="\n", soft_wrap=True)
        return
    folder = kept if args.keep else args.runs_dir / "results" / (f"smoke_{plan.name}" if args.smoke else plan.name)
    committed = run_sets.read_committed(runs)  # before --keep replaces them
    with make_display(runs) as display:
        failed = run_sets.train(runs, args.workers, display)
    results = run_sets.collect(runs, folder)
    if args.only is None:  # otherwise other jobs of the array are still running
        console().print(*run_set_tables.write_and_show(plan, results, folder), sep="\n")
    console().print(*run_set_tables.comparison(results, committed, kept), sep="\n", soft_wrap=True)
    unexpected = [] if args.smoke else run_set_tables.unexpected(results)
    for problem in [*(f"failed: {line}" for line in failed), *unexpected]:
        print(problem, file=sys.stderr)
    sys.exit(1 if failed or unexpected else 0)


if __name__ == "__main__":
    exit_on_error(main, continues=True)
