"""Everything in a results folder that is made from its records: tables, verdicts, figures, the page."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from pitfalls.claims.ledger import read_claims
from pitfalls.claims.verdicts import Verdict, judge
from pitfalls.language import lab_tables
from pitfalls.language.beliefs import Judgement, judge_beliefs, read_beliefs
from pitfalls.report import leaderboard, overview, page, roofline_table, scaling_tables, solved, speed, tables
from pitfalls.report.inventory import inventory
from pitfalls.report.measurements import Roofline, Scaling, Speed, StepTimes
from pitfalls.results import formats
from pitfalls.results.kept import Kept, Result, read_results, unique
from pitfalls.results.plans import Plan, read_plan
from pitfalls.runs import run_folder
from pitfalls.runs.files import read_json

BENCH = "objectives"
"""The set that has a leaderboard."""
SPEED = "benchmark/*/measured.json"
"""What ``scripts/benchmark.py --json`` writes, a folder per machine."""
SCALING = Path("scaling", "measured.json")
"""What ``scripts/benchmark.py --scaling`` writes."""
ON_PAPER = Path("roofline", "estimated.json")
"""What ``scripts/benchmark.py --roofline`` writes."""
LAB = Path("degeneration", "smollm2", run_folder.RECORD)
"""What ``scripts/degenerate.py model=smollm2`` writes."""
PATH_STAR = Path("degeneration", "path_star.json")
"""What ``scripts/degenerate.py --runs`` writes."""


def kept_sets(results_dir: Path, conf: Path) -> list[tuple[Plan, list[Result]]]:
    """The sets of ``conf/reproduce.yaml`` of which something is kept."""
    names = yaml.safe_load((conf / "reproduce.yaml").read_text())
    plans = [read_plan(conf / "reproduce.yaml", name) for name in names]
    return [(plan, results) for plan in plans if (results := read_results(results_dir / plan.name, plan))]


def write_texts(results_dir: Path, conf: Path, claims: Path) -> tuple[list[Kept], list[Verdict]]:
    """Everything but the figures.

    Args:
        results_dir: with a folder per set, and in it ``records/``.
        conf: the folder of presets, which says what the sets are.
        claims: the ledger.

    Returns:
        The runs that count, and the verdicts on the claims.
    """
    sets = kept_sets(results_dir, conf)
    kept = unique(result for _, results in sets for result in results)
    presets = unique(result for _, results in sets for result in results if not result.own_settings)
    verdicts = [judge(claim, kept) for claim in read_claims(claims)]
    texts = {
        "claims": overview.ledger(verdicts),
        "accuracy": overview.accuracy(kept),
        "cheat": overview.cheat(kept),
        "published": overview.published(conf / "published.yaml", presets),
    }
    for name, table in texts.items():
        formats.write(table, results_dir / name)
    for plan, results in sets:
        write_set_tables(plan, results, results_dir / plan.name)
        if plan.name == BENCH:
            texts |= bench_tables(results, results_dir / plan.name, conf)
    measurements: list[tuple[Path, Any, Callable[[Any], dict[str, formats.Table]]]] = [
        *((path, Speed, speed.tables) for path in sorted(results_dir.glob(SPEED))),
        (results_dir / SCALING, Scaling, scaling_tables.tables),
        (results_dir / ON_PAPER, Roofline, roofline_table.tables),
    ]
    for measured, of_type, made in measurements:
        if measured.exists():
            for name, table in made(read_json(measured, of_type)).items():
                formats.write(table, measured.with_name(name))
                texts |= {f"{measured.parent.name}/{name}": table}
    (results_dir / "README.md").write_text(inventory(sets))
    lab = lab_of(results_dir, conf)
    if lab:
        texts |= lab_tables.write(*lab, results_dir / LAB.parent)
    if (own := results_dir / PATH_STAR).exists():
        texts["path_star"] = lab_tables.path_star(read_json(own, list[dict[str, Any]]))
        formats.write(texts["path_star"], own.with_suffix(""))
    (results_dir / "report.html").write_text(page.render(verdicts, texts, kept, lab))
    return kept, verdicts


def lab_of(results_dir: Path, conf: Path) -> tuple[dict[str, Any], list[Judgement]] | None:
    """The record of the degeneration lab, judged; None where there is none."""
    if not (path := results_dir / LAB).exists():
        return None
    record = read_json(path, dict[str, Any])
    return record, judge_beliefs(read_beliefs(conf / "degeneration" / "claims.yaml"), record["measures"])


def bench_tables(results: list[Result], folder: Path, conf: Path) -> dict[str, formats.Table]:
    """The leaderboard of the objectives, and what it says beside published orderings and beside costs."""
    times = folder / "step_times.json"
    made = {
        "leaderboard": leaderboard.leaderboard(results, read_json(times, StepTimes).relative if times.exists() else {}),
        "at_a_glance": solved.at_a_glance(results),
        "solved": solved.solved(results),
        "agreement": leaderboard.agreement(conf / "published.yaml", results),
        "by_cost": leaderboard.by_cost(results),
        "decodings": leaderboard.decodings(results),
    }
    for name, table in made.items():
        formats.write(table, folder / name)
    return made


def write_set(plan: Plan, results: Sequence[Result], folder: Path) -> str:
    """Tables and figures of one set. Returns its table as Markdown."""
    write_set_figures(plan, results, folder)
    return write_set_tables(plan, results, folder)


def write_set_tables(plan: Plan, results: Sequence[Result], folder: Path) -> str:
    """``table.md`` and ``table.tex`` with a row per cell, ``table.csv`` with a row per run. Returns the Markdown."""
    table = tables.of_set(results, plan.title)
    formats.write(table, folder / "table")
    (folder / "table.csv").write_text(tables.to_csv(results))
    return formats.to_markdown(table)


def write_set_figures(plan: Plan, results: Sequence[Result], folder: Path) -> None:
    """Learning curves, positions over training, and entropy per position where it is known; PNG and SVG."""
    from pitfalls.report import bench_figures, figures

    drawn = bench_figures if figures.crowded(results) else figures
    for kind in ("png", "svg"):
        drawn.draw(results, plan.title, folder / f"figure.{kind}")
        drawn.draw_positions(results, plan.title, folder / f"positions.{kind}")
        drawn.draw_entropy(results, plan.title, folder / f"entropy.{kind}")
