"""The claims as ``conf/claims.yaml`` states them: queries over kept runs, each with its decision rule."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pitfalls.claims.measures import FACTS, MEASURES
from pitfalls.results.kept import Kept

RANGE = {"at_least", "at_most"}


@dataclass(frozen=True)
class Check:
    """One query with its rule."""

    where: Mapping[str, Any]
    given: Mapping[str, Any]
    """Measures that must reach a value, or lie within ``{at_least: ..., at_most: ...}``, for a run to count."""
    measure: str
    low: float | None
    high: float | None
    chance_margin: float | None
    """The bounds are 1/d -+ this."""
    cells: int
    seeds: int

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
        for name in ("cells", "seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"measure {self.measure}: {name}={getattr(self, name)}: at least 1")

    def speaks_of(self, kept: Kept) -> bool:
        """Whether a run answers the query at all."""
        return all(_matches(FACTS[name](kept), wanted) for name, wanted in self.where.items())

    def counts(self, kept: Kept) -> bool:
        """Whether it has learned what it must have learned."""
        for name, wanted in self.given.items():
            value = MEASURES[name](kept)
            bounds = wanted if isinstance(wanted, Mapping) else {"at_least": wanted}
            if value is None or not _matches(value.value, bounds):
                return False
        return True

    def bounds(self, kept: Kept) -> tuple[float, float]:
        """What its number must lie in."""
        chance = 1 / kept.degree
        if self.chance_margin is not None:
            return chance - self.chance_margin, chance + self.chance_margin
        return -math.inf if self.low is None else self.low, math.inf if self.high is None else self.high


@dataclass(frozen=True)
class Claim:
    """A statement of the paper."""

    name: str
    statement: str
    source: str
    checks: tuple[Check, ...]
    sets: tuple[str, ...]
    """Sets of ``conf/reproduce.yaml`` whose runs decide it."""
    remark: str = ""
    """What the runs have shown since, for the reader; decides nothing."""

    @property
    def commands(self) -> list[str]:
        """What produces the missing evidence."""
        return [f"python scripts/reproduce.py {name}" for name in self.sets]


def _matches(fact: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        return bool(wanted.get("at_least", -math.inf) <= fact <= wanted.get("at_most", math.inf))
    return fact in wanted if isinstance(wanted, list) else fact == wanted


NEEDED_KEYS = {"statement", "source", "checks", "sets"}
CLAIM_KEYS = NEEDED_KEYS | {"remark"}
CHECK_KEYS = {"where", "given", "measure", "low", "high", "chance_margin", "cells", "seeds"}


def read_claims(path: Path) -> list[Claim]:
    """The claims of a file.

    Raises:
        ValueError: a key, measure or fact that does not exist; names the claim.
    """
    try:
        ledger = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(ledger, dict):
        raise ValueError(f"{path.name}: a mapping of names to claims is needed")
    claims = []
    for name, data in ledger.items():
        try:
            _check_keys(data, NEEDED_KEYS, CLAIM_KEYS)
            if not data["checks"]:
                raise ValueError("checks: at least one")
            checks = tuple(_check(check) for check in data["checks"])
            claims.append(Claim(name, data["statement"], data["source"], checks, tuple(data["sets"]), data.get("remark", "")))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path.name}: {name}: {error}") from None
    return claims


def _check_keys(data: Mapping[str, Any], needed: set[str], known: set[str]) -> None:
    if unknown := sorted(set(data) - known):
        raise ValueError(f"{unknown[0]}: no such key; there are {', '.join(sorted(known))}")
    if missing := sorted(needed - set(data)):
        raise ValueError(f"{missing[0]}: missing")


def _check(data: Mapping[str, Any]) -> Check:
    _check_keys(data, {"where", "measure", "cells", "seeds"}, CHECK_KEYS)
    optional: dict[str, Any] = {"given": {}, **dict.fromkeys(("low", "high", "chance_margin"))}
    return Check(**(optional | dict(data)))
