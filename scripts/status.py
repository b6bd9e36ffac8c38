"""Show the progress of sweeps: the state of each run (finished, running, failed and why, stopped, waiting), and the time left.

    python scripts/status.py            the sweeps of runs/, the latest first, or all runs if there is no sweep
    python scripts/status.py RUNS_DIR --failed

Reads the files of the runs and changes nothing, so it can be called while sweeps run.
"""

from pathlib import Path

from pitfalls.experiment.cli import Parser, console, exit_on_error, terminal_table
from pitfalls.experiment.sweep_tables import failed_runs, sweep_table, sweeps_of
from pitfalls.schemas import printable


def main() -> None:
    """Parse, look, print."""
    parser = Parser(__doc__)
    parser.add_argument("runs_dir", metavar="RUNS_DIR", type=Path, nargs="?", default=Path("runs"), help="default: runs")
    parser.add_argument("--failed", action="store_true", help="list only failed runs, each with the command that tries it again")
    args = parser.parse_args()
    sweeps = sweeps_of(args.runs_dir)
    if args.failed:
        for lines in failed_runs(sweeps):
            print(lines)
        return
    for sweep in sweeps:
        table = sweep_table(sweep)
        if isinstance(table, str):
            print(printable(table))
        else:
            console().print(terminal_table(table))


if __name__ == "__main__":
    exit_on_error(main)
