"""Write one table of all finished runs of a folder, a row per run: ``python scripts/collect.py runs > runs.csv``.

The columns are counts (k right of n), the config keys that differ between the runs, and a few facts. A run whose record cannot be
read is left out and named on standard error. The exit status is then 1. A run that was copied to other folders is counted once,
and the copies are named.
"""

import csv
import sys
from pathlib import Path

from pitfalls.experiment.cli import Parser, existing_folder, exit_on_error
from pitfalls.runs.collection import read_finished, table
from pitfalls.schemas import ConfigError


def main() -> None:
    """Parse, read, write CSV to standard output."""
    parser = Parser(__doc__)
    parser.add_argument("runs_dir", metavar="RUNS_DIR", type=Path, nargs="?", default=Path("runs"), help="default: runs")
    args = parser.parse_args()
    broken: list[str] = []
    copies: list[str] = []
    runs_dir = existing_folder(args.runs_dir, "give the folder of the runs, as runs_dir=FOLDER named it")
    rows = table(read_finished(runs_dir, broken.append, copies.append))
    if rows:
        writer = csv.DictWriter(sys.stdout, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    elif not broken:
        raise ConfigError(f"{args.runs_dir}: no finished run; scripts/status.py {args.runs_dir} shows how far the runs are")
    for message in copies:
        print(f"not counted again: {message}", file=sys.stderr)
    for message in broken:
        print(f"left out: {message}", file=sys.stderr)
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    exit_on_error(main)
