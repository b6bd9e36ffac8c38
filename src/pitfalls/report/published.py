"""Numbers of other papers (``conf/published.yaml``), compared with our runs of the same method: ``results/published``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from pitfalls.report.accuracy import NOT_READ
from pitfalls.results.entries import convert, read_yaml
from pitfalls.results.formats import Table
from pitfalls.results.groups import by_seed, n_solved, seeds_of_configs, training_text
from pitfalls.results.kept import Kept
from pitfalls.runs.counts import Positive
from pitfalls.schemas import check_choice

HEADER = ("graph, N", "source", "method", "published", "ours", "solved", "our N, samples, precision", "our model")
NOT_RUN = ("not run", "-", "-", "-")


class PublishedRow(Struct, frozen=True, forbid_unknown_fields=True):
    """Published exact matches on one graph, in percent."""

    degree: Positive
    path_length: Positive
    numbers: dict[str, Annotated[float, Meta(ge=0, le=100)]]
    """Exact matches in percent, by the name of the method in the paper."""

    def __post_init__(self) -> None:
        if not self.numbers:
            raise ValueError("numbers: at least one")


class Paper(Struct, frozen=True, forbid_unknown_fields=True):
    """One table or figure of a paper."""

    source: str
    short: str
    """Short name of the paper for tables."""
    setting: str
    n_values: Positive
    ours: dict[str, str]
    """Our objective for each of the paper's methods."""
    rows: tuple[PublishedRow, ...]

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError("rows: at least one")
        named = {name for row in self.rows for name in row.numbers}
        if missing := sorted(set(self.ours) - named):
            raise ValueError(f"ours {missing[0]}: no row has a number of it; choose one of {', '.join(sorted(named))}")


def read_papers(path: Path) -> list[Paper]:
    """Return the papers of a file like ``conf/published.yaml``.

    The objectives that it may name are those of the presets beside the file.

    Raises:
        ConfigError: the file has a wrong key or value, or names an objective that does not exist. The message names the place.
    """
    papers = convert(path.name, read_yaml(path), list[Paper])
    objectives = tuple(preset.stem for preset in sorted((path.parent / "objective").glob("*.yaml")))
    for paper in papers:
        for name, ours in paper.ours.items():
            if objectives:
                check_choice(f"{path.name}: {paper.short}: ours {name}", ours, objectives)
    return papers


def published(papers: Sequence[Paper], kept: Sequence[Kept]) -> Table:
    """Return the table: one row per published number and config of ours on a graph of the same degree and length."""
    rows = []
    groups = seeds_of_configs(kept)
    for paper in papers:
        for row in paper.rows:
            same = [runs for runs in groups if runs[0].star[:2] == (row.degree, row.path_length)]
            for name, number in row.numbers.items():
                head = (
                    f"G({row.degree},{row.path_length}), {paper.n_values}",
                    paper.short,
                    name.replace("_", " "),
                    f"{number / 100:.3f}",
                )
                ours = [runs for runs in same if runs[0].objective == paper.ours.get(name)]
                ours.sort(key=lambda runs: (runs[0].star, runs[0].model, runs[0].record.samples_seen))
                rows += [(*head, *_ours(runs)) for runs in ours] or [(*head, *NOT_RUN)]
    settings = " ".join(f"{paper.short} is {paper.source}: {paper.setting}." for paper in papers)
    note = f"Exact match on test graphs; ours by seed. The settings differ from ours and from each other. {settings} {NOT_READ}"
    return Table("Published numbers beside ours", HEADER, tuple(rows), note)


def _ours(runs: Sequence[Kept]) -> tuple[str, ...]:
    first = runs[0]
    exact = by_seed([run.exact_match for run in runs])
    return exact, f"{n_solved(runs)} of {len(runs)}", f"{first.config.task.n_values}, {training_text(runs)}", first.model
