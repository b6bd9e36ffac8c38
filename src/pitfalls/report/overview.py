"""Tables over all kept runs: accuracy per graph and model, the cheat, the published numbers beside ours, the claims."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pitfalls.claims.measures import MEASURES
from pitfalls.claims.verdicts import Evidence, Verdict
from pitfalls.results.formats import Table
from pitfalls.results.kept import FIRST_HOP, SOLVED, Kept, group, samples_text, share
from pitfalls.results.statistics import wilson

OBJECTIVES = ("next_token", "teacherless", "reversed")

NOT_READ = (
    "The paper's own tables and figures (exact match of GPT-Mini, GPT2-Large and Mamba per graph) could not be read here: "
    "no number of it is quoted. Compare with 1/d and with its qualitative claims."
)


def _data(kept: Kept) -> str:
    graphs = kept.config["task"]["train_graphs"]
    return "new graphs" if graphs is None else f"{graphs:,} graphs"


def by_seed(values: Sequence[float | None], digits: int = 3) -> str:
    """Each seed's value: outcomes are bimodal, so a mean would hide them."""
    return " / ".join("-" if v is None else f"{v:.{digits}f}" for v in values)


# ------------------------------------------------------------------ accuracy


def accuracy(kept: Sequence[Kept]) -> Table:
    """Exact match per graph, model and data, one column per objective."""
    slots: dict[tuple[Any, ...], dict[str, list[list[Kept]]]] = {}
    for cell in group(kept):
        objective = cell[0].config["objective"]["name"]
        if objective in OBJECTIVES:
            key = (*cell[0].star, cell[0].config["model"]["name"], _data(cell[0]))
            slots.setdefault(key, {}).setdefault(objective, []).append(cell)
    rows = tuple(_accuracy_row(slots[key]) for key in sorted(slots))
    note = (
        f"Exact match on test graphs, each seed's value; brackets: seeds that solve the graph (at least {SOLVED}) and samples "
        "seen. "
        f"A semicolon separates cells that differ in their training. {NOT_READ}"
    )
    header = ("graph, N", "1/d", "model", "training data", "next token (teacher forcing)", "teacherless", "reversed")
    return Table("Accuracy per graph and model", header, rows, note)


def _accuracy_row(cells: Mapping[str, list[list[Kept]]]) -> tuple[str, ...]:
    first = next(iter(cells.values()))[0][0]
    columns = ("; ".join(_accuracy_cell(runs) for runs in cells.get(name, [])) or "-" for name in OBJECTIVES)
    return first.graph_text, f"{1 / first.degree:.3f}", first.config["model"]["name"], _data(first), *columns


def _accuracy_cell(runs: Sequence[Kept]) -> str:
    solved = sum(run.solved for run in runs)
    return f"{by_seed([run.exact_match for run in runs])} ({solved} of {len(runs)}, {samples_text(runs)})"


# ------------------------------------------------------------------ the cheat


def cheat(kept: Sequence[Kept]) -> Table:
    """What next-token models do, cell by cell."""
    cells = [cell for cell in group(kept) if cell[0].config["objective"]["name"] == "next_token"]
    cells.sort(key=lambda cell: (*cell[0].star, cell[0].config["model"]["name"], cell[0].record["samples_seen"]))
    header = (
        "graph, N",
        "model",
        "training data",
        "samples",
        "exact match",
        "others, forced",
        "follows a wrong arm to its leaf",
        "follows it, then the goal",
        "entropy of the first hop (ln d)",
        "largest other entropy",
        "wrong answers that are wrong at the first hop",
        "best of 8 (blind guess)",
    )
    note = (
        "Each seed's value. Others, forced: the lowest accuracy of a position besides the first hop, given the gold tokens "
        "before it; below 0.95 the lookups are not learned and the rest of the row says nothing about the cheat. Follows a wrong "
        "arm: put onto a wrong arm, it walks on along it, and ends at that arm's leaf or says the goal of the prompt last "
        "(teacher forcing cannot tell reading the last token off the edges from copying it; the paper, as far as it is known, "
        "counts the former alone); a dash: the path is too short to tell. Entropies are in nats. "
        "Best of 8: graphs solved by one of eight samples; in brackets what blind guesses of an arm give."
    )
    return Table("The Clever-Hans cheat", header, tuple(_cheat_row(cell) for cell in cells), note)


def _cheat_row(runs: Sequence[Kept]) -> tuple[str, ...]:
    first = runs[0]

    def values(name: str) -> list[float | None]:
        return [None if (found := MEASURES[name](run)) is None else found.value for run in runs]

    hops = [None if run.entropies is None else run.entropies[FIRST_HOP] for run in runs]
    best = [_best_of_8(run) for run in runs]
    return (
        first.graph_text,
        first.config["model"]["name"],
        _data(first),
        samples_text(runs),
        by_seed(values("exact_match")),
        by_seed(values("other_positions")),
        _by_kind(runs, "to_its_leaf"),
        _by_kind(runs, "to_the_goal"),
        f"{by_seed(hops, 2)} ({math.log(first.degree):.2f})",
        by_seed(values("other_entropy"), 2),
        by_seed(values("wrong_at_first_hop")),
        f"{by_seed(best)} ({1 - (1 - 1 / first.degree) ** 8:.3f})",
    )


def _by_kind(runs: Sequence[Kept], kind: str) -> str:
    probes = [run.record["probes"]["arm_following"] for run in runs]
    return by_seed([None if probe is None else share(probe[kind]) for probe in probes])


def _best_of_8(run: Kept) -> float | None:
    probe = run.record["probes"]["verifier"]
    return None if probe is None else share(probe["solved"]["8"])


# ------------------------------------------------------------------ published numbers


def published(path: Path, kept: Sequence[Kept]) -> Table:
    """What other papers report, and our runs of the same method on a graph of the same degree and length beside it."""
    papers = yaml.safe_load(path.read_text())
    rows = []
    for paper in papers:
        for row in paper["rows"]:
            same = [cell for cell in group(kept) if cell[0].star[:2] == (row["degree"], row["path_length"])]
            graph = f"G({row['degree']},{row['path_length']}), {paper['n_values']}"
            for name, number in row["numbers"].items():
                ours = [cell for cell in same if cell[0].config["objective"]["name"] == paper["ours"].get(name)]
                texts = "; ".join(map(_ours, sorted(ours, key=lambda cell: cell[0].star))) or "-"
                rows.append((graph, f"{1 / row['degree']:.3f}", paper["source"], name, f"{number / 100:.3f}", texts))
    settings = " ".join(f"{paper['source']}: {paper['setting']}." for paper in papers)
    note = f"Exact match on test graphs; ours by seed. The settings differ from ours and from each other. {settings} {NOT_READ}"
    header = ("graph, N", "1/d", "source", "method", "published", "ours")
    return Table("Published numbers beside ours", header, tuple(rows), note)


def _ours(cell: Sequence[Kept]) -> str:
    objective, model = (cell[0].config[part]["name"] for part in ("objective", "model"))
    return f"{objective} {_accuracy_cell(cell)}, {model}, N={cell[0].star[2]}"


# ------------------------------------------------------------------ claims


def ledger(verdicts: Sequence[Verdict]) -> Table:
    """One row per claim, with what decides it."""
    rows = tuple(
        (verdict.claim.statement, verdict.claim.source, verdict.verdict, "\n".join(evidence_lines(verdict)) or "-")
        for verdict in verdicts
    )
    note = (
        "The rules stand in conf/claims.yaml. They were written when the runs of laptop_full were known, and before any run of "
        "the sets graphs, grokking and pretrained had ended. Values are by seed; +- is the larger half of the seeds' 95 % Wilson "
        "intervals, where the value is a share. Cells that do not count are shown in brackets. A contradicted claim is a result."
    )
    return Table("The paper's claims", ("claim", "source", "verdict", "evidence"), rows, note)


def evidence_lines(verdict: Verdict) -> list[str]:
    """The evidence of every check, and what is missing."""
    lines = []
    for check, cells, missing in zip(verdict.claim.checks, verdict.evidence, verdict.missing, strict=True):
        lines += [f"{check.measure.replace('_', ' ')}: {_evidence(cell)}." for cell in cells]
        lines += [f"Missing: {missing} (`{'`, `'.join(verdict.claim.commands)}`)."] if missing else []
    return [*lines, f"Since the runs: {verdict.claim.remark}"] if verdict.claim.remark else lines


def _evidence(cell: Evidence) -> str:
    values = [value.value for value in cell.values]
    halves = [_half_width(value.k, value.n) for value in cell.values if value.k is not None and value.n]
    interval = f" +-{max(halves):.3f}" if halves else ""
    low, high = cell.bounds
    above, below = f"at least {low:.3g}", f"at most {high:.3g}"
    rule = below if low == -math.inf else above if high == math.inf else f"{low:.3g} to {high:.3g}"
    if cell.not_counted:
        return f"[not counted, {cell.not_counted}: {cell.cell}: {by_seed(values)}{interval}]"
    return f"{cell.cell}: {by_seed(values)}{interval}, {sum(cell.within)} of {len(cell.within)} as claimed ({rule})"


def _half_width(k: int, n: int) -> float:
    low, high = wilson(k, n)
    return max(high - k / n, k / n - low)
