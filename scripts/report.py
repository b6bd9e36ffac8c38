"""Judge the paper's claims by the kept runs, and make every table, figure and the page from them: ``python scripts/report.py``.

Prints each claim as reproduced, contradicted or not yet run, with the evidence and, where some is missing, the command that
would produce it. Writes results/{claims,accuracy,cheat,published}.{md,csv,tex}, results/README.md, the tables and figures of
every set, and results/report.html, one page that needs neither network nor server. Nothing is trained.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.text import Text

from pitfalls import records
from pitfalls.claims.folklore import Judgement, judge_beliefs, read_beliefs
from pitfalls.claims.ledger import read_claims
from pitfalls.claims.verdicts import CONTRADICTED, REPRODUCED, Verdict, judge
from pitfalls.command_line import exit_on_error
from pitfalls.configs import CONF, ROOT
from pitfalls.plain_files import read_json
from pitfalls.plans import Plan, read_plan
from pitfalls.report import degeneration, degeneration_figures, formats, leaderboard, overview, page, scaling
from pitfalls.report.inventory import inventory
from pitfalls.reproduce import write_figures, write_tables
from pitfalls.results import Kept, Result, read_results, unique
from pitfalls.schemas import ConfigError

BENCH = "objectives"
"""The set that has a leaderboard."""
SCALING = Path("scaling", "measured.json")
"""What ``scripts/benchmark.py --scaling`` writes."""
LAB = Path("degeneration", "smollm2", records.RECORD)
"""What ``scripts/degenerate.py model=smollm2`` writes."""
PATH_STAR = Path("degeneration", "path_star.json")
"""What ``scripts/degenerate.py --runs`` writes."""
STYLES = {REPRODUCED: "bold green", CONTRADICTED: "bold red"}


def main() -> None:
    """Read, judge, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results-dir", type=Path, default=ROOT / "results", help="where the kept runs are, and the tables go")
    parser.add_argument("--claims", type=Path, default=CONF / "claims.yaml", help="the ledger")
    args = parser.parse_args()
    if not args.results_dir.is_dir():
        raise ConfigError(f"--results-dir {args.results_dir}: no such folder; scripts/reproduce.py laptop makes results/laptop")
    kept, verdicts = write_texts(args.results_dir, args.claims)
    for plan, results in kept_sets(args.results_dir):
        write_figures(plan, results, args.results_dir / plan.name)
    if (measured := args.results_dir / SCALING).exists():
        for kind in ("png", "svg"):
            scaling.draw(json.loads(measured.read_text()), measured.with_name(f"figure.{kind}"))
    if lab := lab_of(args.results_dir):
        degeneration_figures.draw(lab[0], args.results_dir / LAB.parent)
    console = Console() if sys.stdout.isatty() else Console(width=140)  # a log has no width to keep to
    for verdict in verdicts:
        show(console, verdict)
    counts = {word: sum(v.verdict == word for v in verdicts) for word in dict.fromkeys(v.verdict for v in verdicts)}
    console.print(f"\n{len(kept)} runs, {len(verdicts)} claims: " + ", ".join(f"{n} {word}" for word, n in counts.items()))
    console.print(f"{args.results_dir}: claims, accuracy, cheat, published as .md, .csv and .tex; report.html; README.md")


def kept_sets(results_dir: Path) -> list[tuple[Plan, list[Result]]]:
    """The sets of runs of which something is kept."""
    names = yaml.safe_load((CONF / "reproduce.yaml").read_text())
    plans = [read_plan(CONF / "reproduce.yaml", name) for name in names]
    return [(plan, results) for plan in plans if (results := read_results(results_dir / plan.name, plan))]


def write_texts(results_dir: Path, claims: Path) -> tuple[list[Kept], list[Verdict]]:
    """Everything but the figures."""
    sets = kept_sets(results_dir)
    kept = unique(result for _, results in sets for result in results)
    verdicts = [judge(claim, kept) for claim in read_claims(claims)]
    tables = {
        "claims": overview.ledger(verdicts),
        "accuracy": overview.accuracy(kept),
        "cheat": overview.cheat(kept),
        "published": overview.published(CONF / "published.yaml", kept),
    }
    for name, table in tables.items():
        formats.write(table, results_dir / name)
    for plan, results in sets:
        write_tables(plan, results, results_dir / plan.name)
        if plan.name == BENCH:
            tables |= bench_tables(results, results_dir / plan.name)
    if (measured := results_dir / SCALING).exists():
        for name, table in scaling.tables(json.loads(measured.read_text())).items():
            formats.write(table, measured.with_name(name))
            tables |= {name: table}
    (results_dir / "README.md").write_text(inventory(sets))
    lab = lab_of(results_dir)
    if lab:
        tables |= degeneration.write(*lab, results_dir / LAB.parent)
    if (own := results_dir / PATH_STAR).exists():
        tables["path_star"] = degeneration.path_star(read_json(own, list[dict[str, Any]]))
        formats.write(tables["path_star"], own.with_suffix(""))
    (results_dir / "report.html").write_text(page.render(verdicts, tables, kept, lab))
    return kept, verdicts


def lab_of(results_dir: Path) -> tuple[dict[str, Any], list[Judgement]] | None:
    """The record of the degeneration lab, judged; None where there is none."""
    if not (path := results_dir / LAB).exists():
        return None
    record = read_json(path, dict[str, Any])
    return record, judge_beliefs(read_beliefs(CONF / "degeneration" / "claims.yaml"), record["measures"])


def bench_tables(results: list[Result], folder: Path) -> dict[str, formats.Table]:
    """The leaderboard of the objectives, and what it says beside published orderings and beside costs."""
    times = folder / "step_times.json"
    tables = {
        "leaderboard": leaderboard.leaderboard(results, json.loads(times.read_text())["relative"] if times.exists() else {}),
        "solved": leaderboard.solved(results),
        "agreement": leaderboard.agreement(CONF / "published.yaml", results),
        "by_cost": leaderboard.by_cost(results),
    }
    for name, table in tables.items():
        formats.write(table, folder / name)
    return tables


def show(console: Console, verdict: Verdict) -> None:
    """One claim with its evidence."""
    title = Text(f"\n{verdict.verdict:<13}", STYLES.get(verdict.verdict, "bold yellow"))
    console.print(title.append(f" {verdict.claim.statement}", "bold").append(f"  [{verdict.claim.source}]", "dim"))
    for line in overview.evidence_lines(verdict):
        console.print(Text(f"    {line}"))


if __name__ == "__main__":
    exit_on_error(main)
