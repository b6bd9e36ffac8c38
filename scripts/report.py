"""Judge the paper's claims by the kept runs, and make every table, figure and the page from them: ``python scripts/report.py``.

Prints each claim as reproduced, contradicted or not yet run, with the evidence and, where some is missing, the command that
would produce it. Writes results/{claims,accuracy,cheat,published}.{md,csv,tex}, results/README.md, the tables and figures of
every set, and results/report.html, one page that needs neither network nor server. Nothing is trained.
"""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from pitfalls.claims.verdicts import CONTRADICTED, REPRODUCED, Verdict
from pitfalls.experiment.cli import exit_on_error
from pitfalls.experiment.config import CONF, ROOT
from pitfalls.language import lab_figures
from pitfalls.report import overview, scaling_tables
from pitfalls.report.folder import LAB, SCALING, kept_sets, lab_of, write_set_figures, write_texts
from pitfalls.schemas import ConfigError

STYLES = {REPRODUCED: "bold green", CONTRADICTED: "bold red"}


def main() -> None:
    """Read, judge, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results-dir", type=Path, default=ROOT / "results", help="where the kept runs are, and the tables go")
    parser.add_argument("--claims", type=Path, default=CONF / "claims.yaml", help="the ledger")
    args = parser.parse_args()
    if not args.results_dir.is_dir():
        raise ConfigError(f"--results-dir {args.results_dir}: no such folder; scripts/reproduce.py laptop makes results/laptop")
    kept, verdicts = write_texts(args.results_dir, CONF, args.claims)
    for plan, results in kept_sets(args.results_dir, CONF):
        write_set_figures(plan, results, args.results_dir / plan.name)
    if (measured := args.results_dir / SCALING).exists():
        for kind in ("png", "svg"):
            scaling_tables.draw(json.loads(measured.read_text()), measured.with_name(f"figure.{kind}"))
    if lab := lab_of(args.results_dir, CONF):
        lab_figures.draw(lab[0], args.results_dir / LAB.parent)
    console = Console() if sys.stdout.isatty() else Console(width=140)  # a log has no width to keep to
    for verdict in verdicts:
        show(console, verdict)
    counts = {word: sum(v.verdict == word for v in verdicts) for word in dict.fromkeys(v.verdict for v in verdicts)}
    console.print(f"\n{len(kept)} runs, {len(verdicts)} claims: " + ", ".join(f"{n} {word}" for word, n in counts.items()))
    console.print(f"{args.results_dir}: claims, accuracy, cheat, published as .md, .csv and .tex; report.html; README.md")


def show(console: Console, verdict: Verdict) -> None:
    """One claim with its evidence."""
    title = Text(f"\n{verdict.verdict:<13}", STYLES.get(verdict.verdict, "bold yellow"))
    console.print(title.append(f" {verdict.claim.statement}", "bold").append(f"  [{verdict.claim.source}]", "dim"))
    for line in overview.evidence_lines(verdict):
        console.print(Text(f"    {line}"))


if __name__ == "__main__":
    exit_on_error(main)
