"""Judge the paper's claims by the kept records, and make all tables, all figures and the page from them.

    python scripts/report.py                                writes to runs/report/
    python scripts/report.py --results-dir runs/results     the same for the runs of your own
    python scripts/report.py --keep                         writes into the results folder itself

Prints one line per claim: reproduced, contradicted or not yet run. The evidence of each claim is in claims/NAME.md of the
output and in report.html, a single page that needs neither network nor server. Nothing is trained.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from pitfalls.experiment.cli import (
    Parser,
    console,
    existing_file,
    existing_folder,
    exit_on_error,
    terminal_table,
    writable_folder,
)
from pitfalls.experiment.config import CONF, ROOT
from pitfalls.report import doc_blocks
from pitfalls.report.folder import write_report

OUTPUT = "where everything is written (default: runs/report)"
SHOWN = ("verdict", "claim", "decided by", "value", "seeds", "configs")


def main() -> None:
    """Read, judge, write, print."""
    parser = Parser(__doc__)
    parser.add_results_dir(ROOT / "results")
    parser.add_argument("--output", metavar="DIR", type=Path, default=ROOT / "runs" / "report", help=OUTPUT)
    parser.add_argument("--keep", action="store_true", help="write into the results folder itself instead")
    parser.add_argument("--claims", metavar="FILE", type=Path, default=CONF / "claims.yaml", help="the ledger of claims")
    args = parser.parse_args()
    existing_folder(args.results_dir, "scripts/reproduce.py laptop makes runs/results", "--results-dir")
    existing_file(args.claims, "give a ledger such as conf/claims.yaml", "--claims")
    output = args.results_dir if args.keep else writable_folder(args.output, "--output")
    report = write_report(args.results_dir, output, CONF, args.claims)
    if output == ROOT / "results":
        for page in doc_blocks.refresh(ROOT):
            print(f"{page}: shows the new tables")
    table, screen = terminal_table(replace(report.tables["claims"], note="", shown=SHOWN)), console()
    screen.print(table)
    counts = Counter(verdict.verdict for verdict in report.verdicts)
    screen.print(f"{len(report.kept)} runs; claims: " + ", ".join(f"{n} {word}" for word, n in counts.items()))
    screen.print(f"{output}: claims.md, report.html, README.md and all other tables and figures")


if __name__ == "__main__":
    exit_on_error(main)
