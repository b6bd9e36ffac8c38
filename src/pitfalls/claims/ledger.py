"""The claims as ``conf/claims.yaml`` states them: queries over kept runs, each with its decision rule."""

import math
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from pitfalls.claims.measures import FACTS, MEASURES
from pitfalls.results.entries import convert_entries, read_yaml
from pitfalls.results.kept import Kept
from pitfalls.results.plans import read_plans
from pitfalls.runs.counts import Positive
from pitfalls.schemas import ConfigError

INF = math.inf


class Range(Struct, frozen=True, forbid_unknown_fields=True):
    """The range of numbers from ``at_least`` to ``at_most``."""

    at_least: float = -INF
    at_most: float = INF

    def __post_init__(self) -> None:
        if not self.at_least <= self.at_most or (self.at_least, self.at_most) == (-INF, INF):
            raise ValueError(
                f"at_least {self.at_least:g}, at_most {self.at_most:g}: give one of them, or a range that is not empty"
            )

    def __contains__(self, value: float) -> bool:
        return self.at_least <= value <= self.at_most


Numbers = int | list[int] | Range | UnsetType


class Where(Struct, frozen=True, forbid_unknown_fields=True):
    """Conditions on the facts of a run (`pitfalls.claims.measures.FACTS`): a value, one of a list, or a range."""

    objective: str | list[str] | UnsetType = UNSET
    family: Literal["transformer", "mamba", "pretrained"] | UnsetType = UNSET
    model: str | list[str] | UnsetType = UNSET
    regime: Literal["online", "fixed"] | UnsetType = UNSET
    degree: Numbers = UNSET
    path_length: Numbers = UNSET
    samples: Numbers = UNSET

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if getattr(self, name) == []:
                raise ValueError(f"where {name}: an empty list, which no run is in; leave it out for all runs")

    def holds_for(self, kept: Kept) -> bool:
        """Whether a run meets all conditions."""
        wanted = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not UNSET}
        return all(_is_wanted(FACTS[name](kept), value) for name, value in wanted.items())


def _is_wanted(fact: Any, wanted: Any) -> bool:
    return fact in wanted if isinstance(wanted, list | Range) else fact == wanted


class Check(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One query over the kept runs, with its decision rule."""

    where: Where
    measure: str
    cells: Positive
    """Number of configs with enough seeds that the claim needs."""
    seeds: Positive
    """Number of seeds that a config needs to count."""
    given: dict[str, float | Range] = {}
    """Measures that must reach a value, or lie in a range, so that a run counts."""
    low: float | None = None
    high: float | None = None
    chance_margin: float | None = None
    """Distance of both bounds from 1/d."""

    def __post_init__(self) -> None:
        for name in (self.measure, *self.given):
            if name not in MEASURES:
                raise ValueError(f"measure {name}: choose one of {', '.join(MEASURES)}")
        if ((self.low, self.high) == (None, None)) == (self.chance_margin is None):
            raise ValueError(f"measure {self.measure}: give bounds: low or high, or chance_margin")
        if self.low is not None and self.high is not None and not self.low <= self.high:
            raise ValueError(f"measure {self.measure}: low={self.low:g} is above high={self.high:g}; exchange them")
        numbers = {"low": self.low, "high": self.high, "chance_margin": self.chance_margin, **self.given}
        for name, value in numbers.items():
            if isinstance(value, float) and math.isnan(value):
                raise ValueError(f"{name}: nan is no number, and no run would ever meet it; write a number")
        if self.chance_margin is not None and self.chance_margin < 0:
            raise ValueError(f"chance_margin={self.chance_margin:g}: it must be at least 0")

    def counts(self, kept: Kept) -> bool:
        """Whether a run meets the conditions of ``given``."""
        for name, wanted in self.given.items():
            value = MEASURES[name](kept)
            if value is None or value.value not in (wanted if isinstance(wanted, Range) else Range(at_least=wanted)):
                return False
        return True

    def bounds(self, kept: Kept) -> tuple[float, float]:
        """Return the lowest and the highest value that agree with the claim."""
        if self.chance_margin is not None:
            return kept.chance - self.chance_margin, kept.chance + self.chance_margin
        return -INF if self.low is None else self.low, INF if self.high is None else self.high


class Claim(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A statement of the paper."""

    headline: str
    """The statement in at most 90 characters, for tables."""
    statement: str
    source: str
    checks: tuple[Check, ...]
    sets: tuple[str, ...]
    """Sets of ``conf/reproduce.yaml`` whose runs decide the claim."""
    remark: str = ""
    """A note for the reader about later runs. It does not change the verdict."""
    name: str = ""
    """The claim's key in the file."""

    def __post_init__(self) -> None:
        if not self.checks:
            raise ValueError("checks: the list is empty; give at least one")
        if len(self.headline) > 90:
            raise ValueError(f"headline: {len(self.headline)} characters; at most 90 fit into a table; shorten it")

    @property
    def commands(self) -> list[str]:
        """The commands that produce the evidence."""
        return [f"python scripts/reproduce.py {name}" for name in self.sets]


def read_claims(path: Path) -> list[Claim]:
    """Return the claims of a file.

        The objectives and sets that they may name are those of the presets and of ``reproduce.yaml`` beside the file.

    Raises:
        ConfigError: a key, measure, fact, objective or set does not exist, or a key is missing. The message names the claim.
    """
    claims = convert_entries(path.name, read_yaml(path), Claim)
    sets = tuple(read_plans(path.parent / "reproduce.yaml")) if (path.parent / "reproduce.yaml").exists() else ()
    objectives = tuple(preset.stem for preset in sorted((path.parent / "objective").glob("*.yaml")))
    for name, claim in claims.items():
        asked = [check.where.objective for check in claim.checks if check.where.objective is not UNSET]
        wanted = [one for each in asked for one in ([each] if isinstance(each, str) else each)]
        for kind, given, known in (("where objective", wanted, objectives), ("set", claim.sets, sets)):
            if known and (missing := sorted(set(given) - set(known))):
                raise ConfigError(f"{path.name}: {name}: {kind} {missing[0]}: there is none; choose one of {', '.join(known)}")
    return [msgspec.structs.replace(claim, name=name) for name, claim in claims.items()]
