"""All files that are made from the records of a results folder: tables, verdicts, evidence pages, figures, the page."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pitfalls.claims.ledger import read_claims
from pitfalls.claims.verdicts import Verdict, judge
from pitfalls.language import lab_figures, lab_tables
from pitfalls.language.beliefs import Judgement, judge_beliefs, read_beliefs
from pitfalls.language.lab_record import LabRecord, PastGoal
from pitfalls.report import bench_figures, figures, leaderboard, orderings, race, roofline_table, scaling_tables, solved, speed
from pitfalls.report.accuracy import accuracy
from pitfalls.report.cheat import cheat
from pitfalls.report.claims_table import claims_table, evidence_page
from pitfalls.report.drawing import Drawing, draw_all
from pitfalls.report.inventory import TITLE, inventory
from pitfalls.report.measurements import Roofline, Scaling, Speed, StepTimes
from pitfalls.report.page import render
from pitfalls.report.published import Paper, published, read_papers
from pitfalls.report.real_input import real_input
from pitfalls.report.set_table import set_table, to_csv
from pitfalls.results import formats
from pitfalls.results.formats import Table
from pitfalls.results.kept import Kept, Result, read_results, record_file, unique
from pitfalls.results.plans import Plan, read_plans
from pitfalls.runs import run_folder
from pitfalls.runs.files import read_json
from pitfalls.runs.records import Score
from pitfalls.schemas import ConfigError

BENCH = "objectives"
"""The set that has a leaderboard."""
SPEED = "benchmark/*/measured.json"
"""Files with the measurements of ``scripts/benchmark.py``, one folder per machine."""
SCALING = Path("scaling", "measured.json")
"""File with the measurements of ``scripts/benchmark.py scaling``."""
ON_PAPER = Path("roofline", "estimated.json")
"""File with the estimates of ``scripts/benchmark.py roofline``."""
LAB = Path("degeneration", "smollm2", run_folder.RECORD)
"""Record that ``scripts/degenerate.py model=smollm2`` writes."""
PATH_STAR = Path("degeneration", "path_star.json")
"""File that ``scripts/degenerate.py --runs`` writes."""
REAL_INPUT = "real_input/*.json"
"""Scores of runs on the authors' files (``scripts/evaluate.py RUN --data FILE --json``)."""
KINDS = ("figure", "positions", "entropy")
"""The kinds of figures of a set."""


Sets = Sequence[tuple[Plan, Sequence[Result]]]
"""Sets of runs with their kept results."""


@dataclass(frozen=True)
class Report:
    """The content of a results folder."""

    kept: Sequence[Kept]
    """All kept runs, each once."""
    verdicts: Sequence[Verdict]
    tables: dict[str, Table]
    """Tables by name. A name is the path of the table's files without a suffix."""


def kept_sets(results_dir: Path, conf: Path) -> Sets:
    """Return the sets of ``conf/reproduce.yaml`` that have kept results."""
    plans = read_plans(conf / "reproduce.yaml").values()
    return [(plan, results) for plan in plans if (results := read_results(results_dir / plan.name, plan))]


def write_report(results_dir: Path, output: Path, conf: Path, claims: Path) -> Report:
    """Write everything that is made from the records.

    Args:
        results_dir: the folder with one folder per set, which contains ``records/``.
        output: the folder for tables, figures and ``report.html``. It may be the same folder.
        conf: the folder of presets, which defines the sets.
        claims: the claims.

    Raises:
        ConfigError: the output folder has a ``README.md`` of somebody else.
    """
    readme = output / "README.md"
    if readme.exists() and not readme.read_text().startswith(f"# {TITLE}\n"):
        raise ConfigError(f"--output {output}: it has a README.md of its own, which would be replaced; choose another folder")
    sets = kept_sets(results_dir, conf)
    report = write_texts(sets, results_dir, output, conf, claims)
    draw_all(list(drawings(sets, results_dir, conf)), output, results_dir)
    return report


def write_texts(sets: Sets, results_dir: Path, output: Path, conf: Path, claims: Path) -> Report:
    """Write everything but the figures, from the kept sets of the folder. Other arguments are those of `write_report`."""
    papers = read_papers(conf / "published.yaml")
    every = [result for _, results in sets for result in results]
    kept, presets = unique(every), unique(result for result in every if not result.own_settings)
    verdicts = [judge(claim, kept) for claim in read_claims(claims)]
    tables = {
        "claims": claims_table(verdicts),
        "accuracy": accuracy(kept),
        "cheat": cheat(kept),
        "published": published(papers, presets),
    }
    if race_runs := _race_runs(sets):
        tables |= {f"{race.NAME}/{name}": table for name, table in race.tables(race_runs).items()}
    for plan, results in sets:
        if plan.name == BENCH:
            tables |= {f"{BENCH}/{name}": table for name, table in _bench_tables(results, results_dir / BENCH, papers).items()}
        write_set_tables(plan, results, output / plan.name)
    tables |= dict(_measured_tables(results_dir))
    lab = lab_of(results_dir, conf)
    if lab:
        tables |= {f"{LAB.parent}/{name}": table for name, table in lab_tables.tables(*lab).items()}
    for name, table in tables.items():
        formats.write(table, output / name)
    for verdict in verdicts:
        page = output / "claims" / f"{verdict.claim.name}.md"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(evidence_page(verdict))
    (output / "README.md").write_text(inventory(sets))
    (output / "report.html").write_text(render(verdicts, tables, kept, lab))
    return Report(kept, verdicts, tables)


def _bench_tables(results: Sequence[Result], folder: Path, papers: Sequence[Paper]) -> dict[str, Table]:
    """Return the leaderboard of the objectives, and its comparisons with published orderings and with costs."""
    times = folder / "step_times.json"
    return {
        "summary": solved.summary(results),
        **solved.at_a_glance(results),
        "leaderboard": leaderboard.leaderboard(results, read_json(times, StepTimes).relative if times.exists() else {}),
        "solved": solved.solved(results),
        "agreement": orderings.agreement(papers, results),
        "by_cost": orderings.by_cost(results),
        "decodings": leaderboard.decodings(results),
        **{f"by_objective/{name}": table for name, table in solved.by_objective(results).items()},
    }


def _race_runs(sets: Sets) -> list[Result]:
    """Return the runs of the race, and those of the recipe that won."""
    return [run for plan, results in sets if plan.name in (race.NAME, race.SOONER) for run in results]


def _measured_tables(results_dir: Path) -> Iterator[tuple[str, Table]]:
    """Return the tables of other measurements: speed, scaling, the estimate for a GPU, models past the goal."""
    measurements: list[tuple[Path, Any, Callable[[Any], dict[str, Table]]]] = [
        *((path, Speed, speed.tables) for path in sorted(results_dir.glob(SPEED))),
        (results_dir / SCALING, Scaling, scaling_tables.tables),
        (results_dir / ON_PAPER, Roofline, roofline_table.tables),
    ]
    for path, of_type, tables in measurements:
        if path.exists():
            for name, table in tables(read_json(path, of_type)).items():
                yield f"{path.parent.relative_to(results_dir)}/{name}", table
    if paths := sorted(results_dir.glob(REAL_INPUT)):
        yield f"{paths[0].parent.relative_to(results_dir)}/table", real_input([read_json(path, Score) for path in paths])
    if (own := results_dir / PATH_STAR).exists():
        yield str(PATH_STAR.with_suffix("")), lab_tables.path_star(read_json(own, list[PastGoal]))


def lab_of(results_dir: Path, conf: Path) -> tuple[LabRecord, list[Judgement]] | None:
    """Return the record of the degeneration lab and the verdicts on the beliefs, or None if there is no record."""
    if not (path := results_dir / LAB).exists():
        return None
    record = read_json(path, LabRecord)
    return record, judge_beliefs(read_beliefs(conf / "degeneration" / "claims.yaml"), record.measures)


def write_set(plan: Plan, results: Sequence[Result], folder: Path) -> str:
    """Write tables and figures of one set into its folder of a results folder, and return its table as Markdown."""
    text = write_set_tables(plan, results, folder)
    draw_all(list(_set_drawings(plan, results, folder, f"{folder.name}/")), folder.parent, folder.parent)
    return text


def write_set_tables(plan: Plan, results: Sequence[Result], folder: Path) -> str:
    """Write ``table.md`` and ``table.tex`` (one row per cell) and ``table.csv`` (one row per run), and return the Markdown."""
    table = set_table(results, plan.title)
    formats.write(table, folder / "table")
    (folder / "table.csv").write_text(to_csv(results))
    return formats.to_markdown(table)


def drawings(sets: Sets, results_dir: Path, conf: Path) -> Iterator[Drawing]:
    """Yield all figures of a results folder."""
    for plan, results in sets:
        yield from _set_drawings(plan, results, results_dir / plan.name, f"{plan.name}/")
    if (measured := results_dir / SCALING).exists():
        draw = partial(scaling_tables.draw, read_json(measured, Scaling))
        yield Drawing(f"{SCALING.parent}/figure", draw, (measured,), (scaling_tables,))
    if lab := lab_of(results_dir, conf):
        for name, draw_lab in lab_figures.FIGURES.items():
            yield Drawing(f"{LAB.parent}/{name}", partial(draw_lab, lab[0]), (results_dir / LAB,), (lab_figures, lab_tables))


def _set_drawings(plan: Plan, results: Sequence[Result], folder: Path, prefix: str) -> Iterator[Drawing]:
    """Yield the figures of one set: learning curves, positions over training, and entropy per position."""
    if plan.name == race.NAME:
        files = tuple(record_file(folder, result.cell, result.seed) for result in results)
        yield Drawing(f"{prefix}figure", partial(race.draw, results), files, (race,))
        return
    module = bench_figures if figures.crowded(results) else figures
    files = tuple(record_file(folder, result.cell, result.seed) for result in results)
    for kind, draw in zip(KINDS, (module.draw, module.draw_positions, module.draw_entropy), strict=True):
        labels = [plan.title, *(f"{result.cell.label}\n{result.method}" for result in results)]
        yield Drawing(f"{prefix}{kind}", partial(draw, results, plan.title), files, (bench_figures, figures), tuple(labels))
