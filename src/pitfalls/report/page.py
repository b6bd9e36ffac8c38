"""``results/report.html``: claims, tables, learning curves and example graphs on one page, without network or server.

The page is `page.html` beside this file with one JSON object put into it. Its script builds every element by DOM calls with
text content only, so nothing that a record says can become markup.
"""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import networkx

from pitfalls.claims.verdicts import Verdict
from pitfalls.language.beliefs import Judgement
from pitfalls.language.lab_tables import KINDS, interval
from pitfalls.report.overview import evidence_lines
from pitfalls.results.formats import Table
from pitfalls.results.kept import Kept, forced, share
from pitfalls.runs.run_folder import graph_name

PLACE = "/*DATA*/null"


def render(
    verdicts: Sequence[Verdict],
    tables: Mapping[str, Table],
    kept: Sequence[Kept],
    lab: tuple[Mapping[str, Any], Sequence[Judgement]] | None = None,
) -> str:
    """The page's text; ``lab`` is the record of a degeneration lab with what it says of each belief."""
    data = {
        "claims": [
            {"statement": v.claim.statement, "source": v.claim.source, "verdict": v.verdict, "evidence": evidence_lines(v)}
            for v in verdicts
        ],
        "tables": [
            {"title": table.title, "header": table.header, "rows": table.rows, "note": table.note}
            for name, table in tables.items()
            if name != "claims"
        ],
        "runs": [_run(one) for one in kept],
        "lab": _lab(*lab) if lab else None,
    }
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":  # so that no string can end the script that holds it
        text = text.replace(character, f"\\u{ord(character):04x}")
    template = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    if template.count(PLACE) != 1:
        raise ValueError(f"page.html has {template.count(PLACE)} places for the data; it needs one {PLACE}")
    return template.replace(PLACE, text)


def _lab(record: Mapping[str, Any], judgements: Sequence[Judgement]) -> dict[str, Any]:
    """What the page shows of a lab."""
    units = record["units"]
    copies = [{"label": label, "rows": [_copy(row, row["before"] + 1) for row in units[kind]]} for kind, label in KINDS.items()]
    copies.append({"label": "greedy loops", "rows": [_copy(row, row["copy"]) for row in record["copies"]["rows"]]})
    return {
        "model": record["source"]["name"],
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
        "strips": record["strips"],
        "copies": copies,
        "temperatures": record["settings"]["temperatures"],
        "penalties": record["settings"]["penalties"],
        "map": record["map"],
    }


def _copy(row: Mapping[str, Any], number: int) -> dict[str, Any]:
    return {"copy": number, "p": _short(row["p"]["value"]), "entropy": _short(row["entropy"]["value"])}


def _run(kept: Kept) -> dict[str, Any]:
    """What the page shows of a run."""
    task = kept.config["task"]
    rows = [row for row in kept.curve if row["split"] == "test"]
    return {
        "name": kept.record["run"],
        "objective": kept.config["objective"]["name"].replace("_", " "),
        "model": kept.config["model"]["name"],
        "graph": f"{graph_name(dict(kept.config))}, N={task['n_values']}",
        "data": "new graphs" if task["train_graphs"] is None else f"{task['train_graphs']} fixed graphs",
        "seed": kept.record["seed"],
        "samples": kept.record["samples_seen"],
        "degree": kept.degree,
        "positions": kept.positions,
        "curve": [
            {
                "samples": row["samples"],
                "graphs": row["evaluation"]["first_hop"]["n"],
                "forced": [_short(v) for v in forced(row["evaluation"])],
                "exact": _short(share(row["evaluation"]["exact_match"])),
                "first_hop": _short(share(row["evaluation"]["first_hop"])),
            }
            for row in rows
        ],
        "examples": [example | {"places": places(example)} for example in kept.record["examples"]],
    }


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def places(example: Mapping[str, Any]) -> dict[str, list[float]]:
    """Where each node is drawn: the start in the middle, arm by arm around it (networkx's shell layout)."""
    graph = networkx.DiGraph([tuple(edge) for edge in example["edges"]])
    arms = [[child, *(b for _, b in networkx.dfs_edges(graph, child))] for child in graph.successors(example["start"])]
    shells = [[example["start"]], *map(list, zip(*arms, strict=True))]
    layout = networkx.shell_layout(graph, shells, rotate=0)
    return {str(node): [round(float(x), 3) + 0.0, round(float(y), 3) + 0.0] for node, (x, y) in layout.items()}
