"""The claims as ``conf/claims.yaml`` states them: queries over kept runs, each with its decision rule."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from pitfalls.claims.measures import FACTS, MEASURES
from pitfalls.results.entries import convert_entries, read_yaml
from pitfalls.results.kept import Kept
from pitfalls.runs.records import Positive

RANGE = {"at_least", "at_most"}


class Check(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One query with its rule."""

    where: dict[str, Any]
    """Facts that a run must have to speak to the claim."""
    measure: str
    cells: Positive
    """Configs, each with enough seeds, that the claim needs."""
    seeds: Positive
    """Seeds that a config needs to count."""
    given: dict[str, Any] = {}
    """Measures that must reach a value, or lie within ``{at_least: ..., at_most: ...}``, for a run to count."""
    low: float | None = None
    high: float | None = None
    chance_margin: float | None = None
    """The bounds are 1/d minus and plus this."""

    def __post_init__(self) -> None:
        for name in (self.measure, *self.given):
            if name not in MEASURES:
                raise ValueError(f"measure {name}: choose one of {', '.join(MEASURES)}")
        for name in self.where:
            if name not in FACTS:
                raise ValueError(f"where {name}: choose one of {', '.join(FACTS)}")
        for name, wanted in (*self.where.items(), *self.given.items()):
            if isinstance(wanted, Mapping) and not 0 < len(wanted) <= len(RANGE & set(wanted)):
                raise ValueError(f"{name}: {dict(wanted)}: give {' or '.join(sorted(RANGE))}")
        if ((self.low, self.high) == (None, None)) == (self.chance_margin is None):
            raise ValueError(f"measure {self.measure}: give bounds: low or high, or chance_margin")
        if self.low is not None and self.high is not None and not self.low <= self.high:
            raise ValueError(f"measure {self.measure}: low={self.low:g} is above high={self.high:g}")

    def speaks_of(self, kept: Kept) -> bool:
        """Whether a run answers the query at all."""
        return all(_matches(FACTS[name](kept), wanted) for name, wanted in self.where.items())

    def counts(self, kept: Kept) -> bool:
        """Whether a run has learned what it must have learned to count."""
        for name, wanted in self.given.items():
            value = MEASURES[name](kept)
            bounds = wanted if isinstance(wanted, Mapping) else {"at_least": wanted}
            if value is None or not _matches(value.value, bounds):
                return False
        return True

    def bounds(self, kept: Kept) -> tuple[float, float]:
        """Return the lowest and the highest value that agree with the claim."""
        if self.chance_margin is not None:
            return kept.chance - self.chance_margin, kept.chance + self.chance_margin
        return -math.inf if self.low is None else self.low, math.inf if self.high is None else self.high


class Claim(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A statement of the paper."""

    headline: str
    """The statement in at most 90 characters, for tables."""
    statement: str
    source: str
    checks: tuple[Check, ...]
    sets: tuple[str, ...]
    """Sets of ``conf/reproduce.yaml`` whose runs decide it."""
    remark: str = ""
    """What the runs have shown since, for the reader; it decides nothing."""
    name: str = ""
    """The key in the file."""

    def __post_init__(self) -> None:
        if not self.checks:
            raise ValueError("checks: at least one")
        if len(self.headline) > 90:
            raise ValueError(f"headline: {len(self.headline)} characters; at most 90 fit into a table")

    @property
    def commands(self) -> list[str]:
        """The commands that produce the evidence."""
        return [f"python scripts/reproduce.py {name}" for name in self.sets]


def _matches(fact: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        return bool(wanted.get("at_least", -math.inf) <= fact <= wanted.get("at_most", math.inf))
    return fact in wanted if isinstance(wanted, list) else fact == wanted


def read_claims(path: Path) -> list[Claim]:
    """Return the claims of a file.

    Raises:
        ConfigError: a key, measure or fact that does not exist, or a key that is missing; names the claim.
    """
    claims = convert_entries(path.name, read_yaml(path), Claim)
    return [msgspec.structs.replace(claim, name=name) for name, claim in claims.items()]
