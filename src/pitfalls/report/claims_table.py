"""The claims with their verdicts: one line each in ``results/claims``, and a page of evidence in ``results/claims/NAME.md``."""

import math
from collections import Counter
from collections.abc import Sequence

from pitfalls.claims.ledger import Check
from pitfalls.claims.verdicts import Evidence, Verdict
from pitfalls.results.formats import Table, to_markdown
from pitfalls.results.groups import by_seed
from pitfalls.results.statistics import wilson

HEADER = ("verdict", "claim", "decided by", "value", "seeds", "configs", "evidence")
NOTE = (
    "The rules stand in conf/claims.yaml. They were written when the runs of laptop_full were known, and before any run of the "
    "sets graphs, grokking and pretrained had ended. Decided by: the measure of the config that is nearest to its bound, or the "
    "farthest beyond it. Value: that config's seeds, and the larger half of their 95 % Wilson intervals where it is a share. "
    "Seeds: how many of them agree with the claim. Configs: how many count, of those that speak to the claim. A "
    "contradicted claim is a result."
)
EVIDENCE_HEADER = ("measure", "config", "value by seed", "as claimed", "rule")


def claims_table(verdicts: Sequence[Verdict]) -> Table:
    """Return a table with one row per claim: verdict, deciding value and a link to the evidence."""
    return Table("The paper's claims", HEADER, tuple(map(_row, verdicts)), NOTE)


def _row(verdict: Verdict) -> tuple[str, ...]:
    link = f"[page](claims/{verdict.claim.name}.md)"
    head = (verdict.verdict, verdict.claim.headline)
    cells = [cell for of_check in verdict.evidence for cell in of_check]
    n_counted = sum(not cell.not_counted for cell in cells)
    counts = f"{n_counted} of {len(cells)}"
    if (decisive := deciding(verdict)) is None:
        return *head, _words(verdict.claim.checks[0].measure), "-", "-", counts, link
    check, cell = decisive
    return *head, _words(check.measure), _values(cell), f"{sum(cell.within)} of {len(cell.within)}", counts, link


def deciding(verdict: Verdict) -> tuple[Check, Evidence] | None:
    """Return the config that decides a verdict: the one with the smallest margin to its bounds, or None if no config counts."""
    counted = [
        (check, cell)
        for check, cells in zip(verdict.claim.checks, verdict.evidence, strict=True)
        for cell in cells
        if not cell.not_counted
    ]
    return min(counted, key=lambda pair: (pair[1].agrees, _margin(pair[1])), default=None)


def _margin(cell: Evidence) -> float:
    """Return the smallest distance of a seed's value to the bounds. It is negative outside of them."""
    low, high = cell.bounds
    return min(min(value.value - low, high - value.value) for value in cell.values)


def evidence_page(verdict: Verdict) -> str:
    """Return the page of a claim in Markdown: statement, source, rules, all configs, and missing evidence."""
    claim = verdict.claim
    title, note = f"{claim.headline}: {verdict.verdict}", "\n\n".join(_notes(verdict))
    return to_markdown(Table(title, EVIDENCE_HEADER, tuple(_evidence_rows(verdict)), note))


def _evidence_rows(verdict: Verdict) -> list[tuple[str, ...]]:
    return [
        (
            _words(check.measure),
            cell.config,
            _values(cell),
            f"{sum(cell.within)} of {len(cell.within)}",
            rule(cell),
        )
        for check, cells in zip(verdict.claim.checks, verdict.evidence, strict=True)
        for cell in cells
        if not cell.not_counted
    ]


def not_counted(verdict: Verdict) -> str:
    """Return how many configs do not count, and why; empty if all count."""
    reasons = Counter(cell.not_counted for cells in verdict.evidence for cell in cells if cell.not_counted)
    n = reasons.total()
    why = "; ".join(f"{count} with {reason}" for reason, count in reasons.most_common())
    return f"{n} config{'s' if n > 1 else ''} that speak{'' if n > 1 else 's'} to the claim: {why}" if n else ""


def _notes(verdict: Verdict) -> list[str]:
    claim = verdict.claim
    commands = ", ".join(f"`{command}`" for command in claim.commands)
    notes = [f"**Claim.** {claim.statement}", f"**Source.** {claim.source}."]
    notes += [f"**Not counted.** {left_out}."] if (left_out := not_counted(verdict)) else []
    notes += [f"**Missing.** {missing}. To produce it: {commands}." for missing in verdict.missing if missing]
    notes += [f"**Since the runs.** {claim.remark}"] if claim.remark else []
    return [*notes, "The [table of all claims](../claims.md) says how to read this."]


def evidence_lines(verdict: Verdict) -> list[str]:
    """Return the evidence of every check as lines of text, for the page ``report.html``."""
    rows = _evidence_rows(verdict)
    lines = [f"{row[0]}: {row[1]}: {row[2]}, {row[3]} as claimed ({row[4]})" for row in rows]
    lines += [f"not counted: {left_out}"] if (left_out := not_counted(verdict)) else []
    lines += [f"missing: {missing} ({', '.join(verdict.claim.commands)})" for missing in verdict.missing if missing]
    return [*lines, f"since the runs: {verdict.claim.remark}"] if verdict.claim.remark else lines


def rule(cell: Evidence) -> str:
    """Return the bounds in words."""
    low, high = cell.bounds
    if low == -math.inf:
        return f"at most {high:.3g}"
    return f"at least {low:.3g}" if high == math.inf else f"{low:.3g} to {high:.3g}"


def _values(cell: Evidence) -> str:
    halves = [_half_width(value.k, value.n) for value in cell.values if value.k is not None and value.n]
    return by_seed([value.value for value in cell.values]) + (f" ±{max(halves):.3f}" if halves else "")


def _half_width(k: int, n: int) -> float:
    low, high = wilson(k, n)
    return max(high - k / n, k / n - low)


def _words(name: str) -> str:
    return name.replace("_", " ")
