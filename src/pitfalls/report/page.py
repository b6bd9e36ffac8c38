"""``results/report.html``: claims, tables, learning curves and example graphs on one page, without network or server.

The page is `page.html` of this folder with one JSON object in it. Its script builds every element by DOM calls with text
content only, so no text of a record can become markup.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
import networkx

from pitfalls.claims.verdicts import Verdict
from pitfalls.language.beliefs import Judgement
from pitfalls.language.lab_record import CopyRow, LabRecord, UnitRow
from pitfalls.language.lab_tables import KINDS, interval
from pitfalls.report.claims_table import evidence_lines
from pitfalls.results.formats import Table
from pitfalls.results.kept import Kept
from pitfalls.runs.records import Example

PLACE = "/*DATA*/null"


def render(
    verdicts: Sequence[Verdict],
    tables: Mapping[str, Table],
    kept: Sequence[Kept],
    lab: tuple[LabRecord, Sequence[Judgement]] | None = None,
) -> str:
    """Return the text of the page. ``lab`` is the record of a degeneration lab with its verdicts on the beliefs."""
    data = {
        "claims": [
            {"statement": v.claim.statement, "source": v.claim.source, "verdict": v.verdict, "evidence": evidence_lines(v)}
            for v in verdicts
        ],
        "tables": [
            {"title": shown.title, "header": shown.header, "rows": shown.rows, "note": shown.note}
            for name, table in tables.items()
            if name != "claims" and "/by_objective/" not in name and (shown := table.for_people())
        ],
        "runs": [_run(one) for one in kept],
        "lab": _lab(*lab) if lab else None,
    }
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":  # so that no string can end the script around it
        text = text.replace(character, f"\\u{ord(character):04x}")
    template = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    if template.count(PLACE) != 1:
        raise ValueError(f"page.html has {template.count(PLACE)} places for the data; it needs one {PLACE}")
    return template.replace(PLACE, text)


def _lab(record: LabRecord, judgements: Sequence[Judgement]) -> dict[str, Any]:
    """Return the page's data of a lab."""
    units = record.units
    copies = [{"label": label, "rows": [_copy(row, row.before + 1) for row in units[kind]]} for kind, label in KINDS.items()]
    copies.append({"label": "greedy loops", "rows": [_copy(row, row.copy) for row in record.copies.rows]})
    return {
        "model": record.source.name,
        "beliefs": [
            {
                "verdict": j.verdict,
                "statement": j.belief.statement,
                "measured": j.belief.measured,
                "rule": j.belief.rule,
                "estimate": interval(j.estimate),
            }
            for j in judgements
        ],
        "strips": msgspec.to_builtins(record.strips),
        "copies": copies,
        "temperatures": record.settings.temperatures,
        "penalties": record.settings.penalties,
        "map": msgspec.to_builtins(record.map),
    }


def _copy(row: CopyRow | UnitRow, number: int) -> dict[str, Any]:
    return {"copy": number, "p": _short(row.p.value), "entropy": _short(row.entropy.value)}


def _run(kept: Kept) -> dict[str, Any]:
    """Return the page's data of a run."""
    return {
        "name": kept.record.run,
        "objective": kept.objective.replace("_", " "),
        "model": kept.model,
        "graph": kept.graph_label,
        "data": kept.data_text,
        "seed": kept.seed,
        "samples": kept.record.samples_seen,
        "degree": kept.degree,
        "positions": kept.positions,
        "curve": [
            {
                "samples": point.samples,
                "graphs": point.evaluation.first_hop.n,
                "forced": [_short(v) for v in point.evaluation.forced],
                "exact": _short(point.evaluation.exact_match.share),
                "first_hop": _short(point.evaluation.first_hop.share),
            }
            for point in kept.test_curve
        ],
        "examples": [msgspec.to_builtins(example) | {"places": places(example)} for example in kept.record.examples],
    }


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def places(example: Example) -> dict[str, list[float]]:
    """Return the place of each node: the start in the middle, and the arms around it (networkx's shell layout)."""
    shells = [[example.start], *map(list, zip(*example.arms(), strict=True))]
    nodes = [str(node) for shell in shells for node in shell]
    return dict(zip(nodes, map(list, _star_layout(tuple(map(len, shells)))), strict=True))


@cache
def _star_layout(sizes: tuple[int, ...]) -> tuple[tuple[float, float], ...]:
    """Return the places of nodes in shells of given sizes, shell by shell, from a cache: thousands of examples share a few."""
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    shells = [list(range(start, start + size)) for start, size in zip(starts, sizes, strict=True)]
    layout = networkx.shell_layout(networkx.empty_graph(sum(sizes)), shells, rotate=0)
    return tuple((round(float(x), 3) + 0.0, round(float(y), 3) + 0.0) for x, y in (layout[i] for i in range(sum(sizes))))
