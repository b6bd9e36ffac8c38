"""Common beliefs about degeneration (``conf/degeneration/claims.yaml``), judged by the record of a lab."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import UNSET

from pitfalls.language.lab_record import Estimate
from pitfalls.results.entries import convert_entries, read_yaml

MIN_VALUES = 5
"""Least number of values for a verdict. An interval from fewer values is too wide."""
HOLDS, REFUTED, UNDECIDED, NOT_MEASURED = "holds", "refuted", "undecided", "not measured"


class Belief(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A common statement about degeneration, with its decision rule."""

    statement: str
    measured: str
    """The measure in words."""
    measure: str
    """Name of the measure (`belief_measures`)."""
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give at_least or at_most")
        if any(bound is not None and math.isnan(bound) for bound in (self.at_least, self.at_most)):
            raise ValueError("at_least or at_most: nan is no number")

    @property
    def rule(self) -> str:
        """The decision rule in words."""
        return f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"

    def can_hold(self, estimate: Estimate) -> bool:
        """Return whether a share of so few values could satisfy the rule at all. A mean always can."""
        if estimate.least_high is UNSET or estimate.most_low is UNSET:
            return True
        if self.at_least is not None:
            return estimate.most_low > self.at_least
        assert self.at_most is not None
        return estimate.least_high < self.at_most

    def judge(self, low: float, high: float) -> str:
        """Return the verdict on an interval from ``low`` to ``high``."""
        if self.at_least is not None:
            return HOLDS if low > self.at_least else REFUTED if high < self.at_least else UNDECIDED
        assert self.at_most is not None
        return HOLDS if high < self.at_most else REFUTED if low > self.at_most else UNDECIDED


@dataclass(frozen=True)
class Judgement:
    """The verdict of a lab on a belief."""

    belief: Belief
    verdict: str
    estimate: Estimate | None
    """Value with its interval. It is None if the model has no such measure."""


def read_beliefs(path: Path) -> list[Belief]:
    """Return the beliefs of a file.

    Raises:
        ConfigError: the file has a wrong key or value. The message names the place.
    """
    return list(convert_entries(path.name, read_yaml(path), Belief).values())


def judge_beliefs(beliefs: Sequence[Belief], measures: Mapping[str, Estimate]) -> list[Judgement]:
    """Return the verdict on every belief, from the measures of a lab's record."""
    found = []
    for belief in beliefs:
        estimate = measures.get(belief.measure)
        if estimate is None:
            verdict = NOT_MEASURED
        else:
            verdict = belief.judge(estimate.low, estimate.high) if estimate.n >= MIN_VALUES else UNDECIDED
        found.append(Judgement(belief, verdict, estimate))
    return found
