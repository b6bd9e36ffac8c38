"""Verdicts: the rules of a claim applied to all kept runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from pitfalls.claims.ledger import Check, Claim
from pitfalls.claims.measures import MEASURES, Value
from pitfalls.results.groups import config_text, n_seeds, seeds_of_configs
from pitfalls.results.kept import Kept

AGREEING_SEEDS = Fraction(2, 3)
REPRODUCED, CONTRADICTED, NOT_YET_RUN = "reproduced", "contradicted", "not yet run"


@dataclass(frozen=True)
class Evidence:
    """The measured values of one config's seeds for a check."""

    config: str
    """Objective, model, graph and data in words."""
    seeds: tuple[int, ...]
    values: tuple[Value, ...]
    """The measured value of each seed."""
    within: tuple[bool, ...]
    """For each value, whether it is within the bounds."""
    bounds: tuple[float, float]
    not_counted: str
    """Reason why the config does not count. It is empty if the config counts."""

    @property
    def agrees(self) -> bool:
        """Whether at least two thirds of the seeds are within the bounds."""
        return Fraction(sum(self.within), len(self.within)) >= AGREEING_SEEDS


@dataclass(frozen=True)
class Verdict:
    """The verdict on a claim, with its evidence."""

    claim: Claim
    verdict: str
    evidence: tuple[tuple[Evidence, ...], ...]
    """Evidence of each check, one entry per config. Configs that do not count come last."""
    missing: tuple[str, ...]
    """Missing evidence of each check, in words. The text is empty if nothing is missing."""


def judge(claim: Claim, kept: Sequence[Kept]) -> Verdict:
    """Return the verdict on a claim, by its decision rules and all kept runs."""
    evidence = [_evidence(check, kept) for check in claim.checks]
    counted = [[cell for cell in cells if not cell.not_counted] for cells in evidence]
    missing = [_missing(check, cells) for check, cells in zip(claim.checks, evidence, strict=True)]
    if any(not cell.agrees for cells in counted for cell in cells):
        verdict = CONTRADICTED
    else:
        verdict = NOT_YET_RUN if any(missing) else REPRODUCED
    return Verdict(claim, verdict, tuple(evidence), tuple(missing))


def _missing(check: Check, cells: Sequence[Evidence]) -> str:
    n_counted = sum(not cell.not_counted for cell in cells)
    if n_counted >= check.cells:
        return ""
    text = f"{check.measure}: {n_counted} of {check.cells} configs with at least {check.seeds} seeds"
    n_missed = sum(len(set(cell.seeds)) >= check.seeds for cell in cells if cell.not_counted)
    return f"{text}; with the seeds but not the condition on {_condition(check)}: {n_missed}" if n_missed else text


def _evidence(check: Check, kept: Sequence[Kept]) -> tuple[Evidence, ...]:
    """Return the evidence of the configs that a check selects. Configs that count come first."""
    found = []
    for runs in seeds_of_configs(run for run in kept if check.where.holds_for(run)):
        measured = [(run, value) for run in runs if (value := MEASURES[check.measure](run)) is not None]
        counted = [(run, value) for run, value in measured if check.counts(run)]
        n_counted, n_measured = (n_seeds([run for run, _ in pairs]) for pairs in (counted, measured))
        enough = n_counted >= check.seeds
        shown = counted if enough else measured
        if not shown:
            continue
        low, high = check.bounds(runs[0])
        found.append(
            Evidence(
                config=config_text(runs),
                seeds=tuple(run.seed for run, _ in shown),
                values=tuple(value for _, value in shown),
                within=tuple(low <= value.value <= high for _, value in shown),
                bounds=(low, high),
                not_counted="" if enough else _why_not(check, n_counted, n_measured),
            )
        )
    return tuple(sorted(found, key=lambda cell: bool(cell.not_counted)))


def _why_not(check: Check, n_counted: int, n_measured: int) -> str:
    if n_measured < check.seeds:
        return f"{n_measured} of {check.seeds} seeds"
    return f"{n_measured - n_counted} of {n_measured} seeds miss the condition on {_condition(check)}"


def _condition(check: Check) -> str:
    return " and ".join(name.replace("_", " ") for name in check.given)
