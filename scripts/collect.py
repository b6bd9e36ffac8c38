"""One table of all finished runs of a folder, a row per run: ``python scripts/collect.py runs > runs.csv``.

Counts (k right of n) rather than ratios, the config keys that differ between the runs, and what a table needs besides. A run
whose record cannot be read is named on standard error and left out; the exit status is then 1.
"""

import argparse
import csv
import sys
from pathlib import Path

from pitfalls.experiment.cli import exit_on_error
from pitfalls.runs.collection import rows
from pitfalls.schemas import ConfigError


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs_dir", type=Path, nargs="?", default=Path("runs"), help="where the runs are (default: runs)")
    return parser.parse_args()


def main() -> None:
    """Write CSV to standard output."""
    args = arguments()
    if not args.runs_dir.is_dir():
        raise ConfigError(f"{args.runs_dir}: no such folder; give the one that runs_dir named")
    broken: list[str] = []
    table = rows(args.runs_dir, broken.append)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerows(table)
    for message in broken:
        print(f"left out: {message}", file=sys.stderr)
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    exit_on_error(main)
