"""The claims ledger: each of the paper's claims is a query over kept records with a decision rule fixed in advance.

``conf/claims.yaml`` states the claims. A check of a claim says which runs speak to it (``where``), what they must have learned
to count (``given``: an undertrained run proves nothing), what is measured, and in which bounds it must lie. Runs are
grouped into cells (equal but for the seed). A cell agrees if at least two thirds of its seeds do: outcomes are
bimodal, so a mean would hide them. A claim is

    not yet run    a check has fewer cells, each with enough seeds, than it asks for
    contradicted   a cell does not agree
    reproduced     else

A contradicted claim is a result. The rules were written before the runs that they judge and are not changed to fit.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from pitfalls.records import graph_name, run_id
from pitfalls.results import FIRST_HOP, Kept, share

AGREEING_SEEDS = Fraction(2, 3)
REPRODUCED, CONTRADICTED, NOT_YET_RUN = "reproduced", "contradicted", "not yet run"


@dataclass(frozen=True)
class Value:
    """A measured number, with its counts where it is a share."""

    value: float
    k: int | None = None
    n: int | None = None


Measure = Callable[[Kept], Value | None]


# ------------------------------------------------------------------ what can be measured


def _share(count: Mapping[str, int] | None) -> Value | None:
    value = share(count) if count else None
    return None if value is None or count is None else Value(value, count["k"], count["n"])


def _test(name: str) -> Measure:
    return lambda kept: _share(kept.record["evaluation"]["test"][name])


def _train(name: str) -> Measure:
    return lambda kept: _share(kept.record["evaluation"].get("train", {}).get(name))


def _probe(probe: str, name: str) -> Measure:
    return lambda kept: _share((kept.record["probes"][probe] or {}).get(name))


def _entropies(kept: Kept) -> list[float] | None:
    probe = kept.record["probes"]["uncertainty"]
    return None if probe is None else [e["sum"] / e["n"] for e in probe["entropy"]]


def first_hop_entropy_gap(kept: Kept) -> Value | None:
    """|entropy of the first hop - ln d|, nats."""
    entropies = _entropies(kept)
    return None if entropies is None else Value(abs(entropies[FIRST_HOP] - math.log(kept.degree)))


def other_entropy(kept: Kept) -> Value | None:
    """The largest mean entropy of a position besides the first hop, nats."""
    entropies = _entropies(kept)
    return None if entropies is None else Value(max(e for i, e in enumerate(entropies) if i != FIRST_HOP))


def verifier_gain(kept: Kept) -> Value | None:
    """The most that the best of k answers gains over blind guesses of an arm, 1 - (1 - 1/d)^k."""
    probe = kept.record["probes"]["verifier"]
    if probe is None:
        return None
    gains = [(share(c) or 0.0) - (1 - (1 - 1 / kept.degree) ** int(k)) for k, c in probe["solved"].items()]
    return Value(max(gains))


def learned_backwards(kept: Kept) -> Value | None:
    """1 if no position was learned after one to its left (the start, which is copied, left out), else 0."""
    probe = kept.record["probes"]["learning_order"]
    if probe is None:
        return None
    samples = [math.inf if n is None else n for n in probe["samples"][1:]]
    return Value(float(samples == sorted(samples, reverse=True) and samples[-1] < math.inf))


MEASURES: dict[str, Measure] = {
    "exact_match": _test("exact_match"),
    "first_hop": _test("first_hop"),
    "train_exact_match": _train("exact_match"),
    "train_first_hop": _train("first_hop"),
    "other_positions": lambda kept: None if kept.other_positions is None else Value(kept.other_positions),
    "arm_following": _probe("arm_following", "follows"),
    "given_right_first_hop": _probe("snowball", "given_right_first_hop"),
    "first_hop_entropy_gap": first_hop_entropy_gap,
    "other_entropy": other_entropy,
    "verifier_gain": verifier_gain,
    "learned_backwards": learned_backwards,
}

FAMILIES = {"gpt2": "transformer", "mamba": "mamba", "mamba2": "mamba", "pretrained": "pretrained"}

FACTS: dict[str, Callable[[Kept], Any]] = {
    "objective": lambda kept: kept.config["objective"]["name"],
    "family": lambda kept: FAMILIES[kept.config["model"]["architecture"]],
    "regime": lambda kept: "online" if kept.config["task"]["train_graphs"] is None else "fixed",
    "degree": lambda kept: kept.degree,
    "path_length": lambda kept: kept.config["task"]["path_length"],
    "samples": lambda kept: kept.record["samples_seen"],
}
"""What ``where`` can ask: equal to a value, one of a list, or ``{at_least: ..., at_most: ...}``."""


# ------------------------------------------------------------------ claims


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
    above_chance: float | None
    """The upper bound is 1/d + this."""
    cells: int
    seeds: int

    def __post_init__(self) -> None:
        for name in (self.measure, *self.given):
            if name not in MEASURES:
                raise ValueError(f"measure {name}: choose one of {', '.join(MEASURES)}")
        for name in self.where:
            if name not in FACTS:
                raise ValueError(f"where {name}: choose one of {', '.join(FACTS)}")
        if (self.low, self.high, self.chance_margin, self.above_chance) == (None, None, None, None):
            raise ValueError(f"measure {self.measure}: no bounds; give low, high, chance_margin or above_chance")

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
        high = chance + self.above_chance if self.above_chance is not None else self.high
        return -math.inf if self.low is None else self.low, math.inf if high is None else high


@dataclass(frozen=True)
class Claim:
    """A statement of the paper."""

    name: str
    statement: str
    source: str
    checks: tuple[Check, ...]
    sets: tuple[str, ...]
    """Sets of ``conf/reproduce.yaml`` whose runs decide it."""

    @property
    def commands(self) -> list[str]:
        """What produces the missing evidence."""
        return [f"python scripts/reproduce.py {name}" for name in self.sets]


def _matches(fact: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        return bool(wanted.get("at_least", -math.inf) <= fact <= wanted.get("at_most", math.inf))
    return fact in wanted if isinstance(wanted, list) else fact == wanted


CHECK_KEYS = {"where", "given", "measure", "low", "high", "chance_margin", "above_chance", "cells", "seeds"}


def read_claims(path: Path) -> list[Claim]:
    """The claims of a file.

    Raises:
        ValueError: a key, measure or fact that does not exist; names the claim.
    """
    claims = []
    for name, data in yaml.safe_load(path.read_text()).items():
        try:
            checks = tuple(_check(check) for check in data["checks"])
            claims.append(Claim(name, data["statement"], data["source"], checks, tuple(data["sets"])))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path.name}: {name}: {error}") from None
    return claims


def _check(data: Mapping[str, Any]) -> Check:
    if unknown := sorted(set(data) - CHECK_KEYS):
        raise ValueError(f"{unknown[0]}: no such key of a check; there are {', '.join(sorted(CHECK_KEYS))}")
    optional: dict[str, Any] = {"given": {}, **dict.fromkeys(("low", "high", "chance_margin", "above_chance"))}
    return Check(**(optional | dict(data)))


# ------------------------------------------------------------------ verdicts


@dataclass(frozen=True)
class Evidence:
    """One cell's answer to a check."""

    cell: str
    """Objective, model, graph and data, as a person reads them."""
    seeds: tuple[int, ...]
    values: tuple[Value, ...]
    """By seed."""
    within: tuple[bool, ...]
    """Whether each is in the bounds."""
    bounds: tuple[float, float]
    n_not_counted: int
    """Seeds left out because they have not learned what they must."""

    @property
    def agrees(self) -> bool:
        """Whether enough seeds do."""
        return Fraction(sum(self.within), len(self.within)) >= AGREEING_SEEDS


@dataclass(frozen=True)
class Verdict:
    """What the records say of a claim."""

    claim: Claim
    verdict: str
    evidence: tuple[tuple[Evidence, ...], ...]
    """By check: the cells with enough seeds."""
    missing: tuple[str, ...]
    """By check, in words; empty if nothing is."""


def judge(claim: Claim, kept: Sequence[Kept]) -> Verdict:
    """Apply a claim's rules to all kept runs."""
    evidence = [_evidence(check, kept) for check in claim.checks]
    missing = [_missing(check, cells) for check, cells in zip(claim.checks, evidence, strict=True)]
    if any(not cell.agrees for cells in evidence for cell in cells):
        verdict = CONTRADICTED
    else:
        verdict = NOT_YET_RUN if any(missing) else REPRODUCED
    return Verdict(claim, verdict, tuple(evidence), tuple(missing))


def _missing(check: Check, cells: Sequence[Evidence]) -> str:
    if len(cells) >= check.cells:
        return ""
    return f"{check.measure}: {len(cells)} of {check.cells} cells with at least {check.seeds} seeds"


def _evidence(check: Check, kept: Sequence[Kept]) -> tuple[Evidence, ...]:
    """The cells that speak of it with enough seeds."""
    found = []
    for runs in group([run for run in kept if check.speaks_of(run)]):
        counted = [(run, value) for run in runs if check.counts(run) and (value := MEASURES[check.measure](run)) is not None]
        if len({run.record["seed"] for run, _ in counted}) < check.seeds:
            continue
        bounds = check.bounds(runs[0])
        found.append(
            Evidence(
                cell=cell_of(runs[0]),
                seeds=tuple(run.record["seed"] for run, _ in counted),
                values=tuple(value for _, value in counted),
                within=tuple(bounds[0] <= value.value <= bounds[1] for _, value in counted),
                bounds=bounds,
                n_not_counted=len(runs) - len(counted),
            )
        )
    return tuple(found)


def group(kept: Sequence[Kept]) -> list[list[Kept]]:
    """Runs that differ in nothing but the seed side by side, in its order."""
    cells: dict[str, list[Kept]] = {}
    for run in kept:
        cells.setdefault(run_id({**run.config, "seed": None}), []).append(run)
    return [sorted(runs, key=lambda run: run.record["seed"]) for runs in cells.values()]


def cell_of(kept: Kept) -> str:
    """What a run trained, in words."""
    config = kept.config
    task = config["task"]
    graphs = "new graphs" if task["train_graphs"] is None else f"{task['train_graphs']} graphs"
    return (
        f"{config['objective']['name']}, {config['model']['name']}, {graph_name(dict(config))} N={task['n_values']}, "
        f"{graphs}, {config['training']['n_steps'] * config['training']['batch_size'] / 1000:.0f} k samples"
    )
