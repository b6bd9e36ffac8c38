"""The claims ledger: each of the paper's claims is a query over kept records with a decision rule fixed in advance.

``conf/claims.yaml`` states the claims. A check of a claim says which runs speak to it (``where``), what they must have learned
to count (``given``: an undertrained run proves nothing), what is measured, and in which bounds it must lie. Runs are
grouped into cells (equal but for the seed). A cell agrees if at least two thirds of its seeds do: outcomes are
bimodal, so a mean would hide them. A claim is

    contradicted   a cell with enough seeds does not agree
    not yet run    a check has fewer cells with enough seeds than it asks for
    reproduced     else

Cells that do not count, for want of seeds or of training, are shown all the same. A contradicted claim is a result.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from pitfalls.records import graph_name, run_id
from pitfalls.results import FIRST_HOP, Kept, samples_text, share

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
    """1 if the tokens between start and goal (which are copied) were learned from right to left, not all at once, else 0."""
    probe = kept.record["probes"]["learning_order"]
    if probe is None or len(probe["samples"]) < 4:
        return None
    samples = [math.inf if n is None else n for n in probe["samples"][1:-1]]
    return Value(float(samples == sorted(samples, reverse=True) and samples[-1] < samples[0]))


def first_hop_child(kept: Kept) -> Value | None:
    """How often the first hop is a child of the start at all, right or wrong: the edge lookup that a guess of an arm needs."""
    probe = kept.record["probes"]["first_hop"]
    k, n = probe["right"]["k"] + probe["other_child"]["k"], probe["right"]["n"]
    return Value(k / n, k, n)


def wrong_at_first_hop(kept: Kept) -> Value | None:
    """Of the wrong answers, those that go wrong at the first hop; None without wrong answers."""
    test = kept.record["evaluation"]["test"]
    exact, hop = test["exact_match"], test["first_hop"]
    return _share({"k": hop["n"] - hop["k"], "n": exact["n"] - exact["k"]}) if exact["n"] else None


MEASURES: dict[str, Measure] = {
    "exact_match": _test("exact_match"),
    "first_hop": _test("first_hop"),
    "train_exact_match": _train("exact_match"),
    "train_first_hop": _train("first_hop"),
    "other_positions": lambda kept: None if kept.other_positions is None else Value(kept.other_positions),
    "arm_following": _probe("arm_following", "follows"),
    "first_hop_child": first_hop_child,
    "wrong_at_first_hop": wrong_at_first_hop,
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
RANGE = {"at_least", "at_most"}


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
        for name, wanted in (*self.where.items(), *self.given.items()):
            if isinstance(wanted, Mapping) and not 0 < len(wanted) <= len(RANGE & set(wanted)):
                raise ValueError(f"{name}: {dict(wanted)}: give {' or '.join(sorted(RANGE))}")
        kinds = ((self.low, self.high), (self.chance_margin,), (self.above_chance,))
        if sum(any(bound is not None for bound in kind) for kind in kinds) != 1:
            raise ValueError(f"measure {self.measure}: give bounds: low or high, or chance_margin, or above_chance")
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


CLAIM_KEYS = {"statement", "source", "checks", "sets"}
CHECK_KEYS = {"where", "given", "measure", "low", "high", "chance_margin", "above_chance", "cells", "seeds"}


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
            _check_keys(data, CLAIM_KEYS, CLAIM_KEYS)
            if not data["checks"]:
                raise ValueError("checks: at least one")
            checks = tuple(_check(check) for check in data["checks"])
            claims.append(Claim(name, data["statement"], data["source"], checks, tuple(data["sets"])))
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
    not_counted: str
    """Why it does not count; empty if it does."""

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
    """By check: the cells that speak of it, those that do not count last."""
    missing: tuple[str, ...]
    """By check, in words; empty if nothing is."""


def judge(claim: Claim, kept: Sequence[Kept]) -> Verdict:
    """Apply a claim's rules to all kept runs."""
    evidence = [_evidence(check, kept) for check in claim.checks]
    counted = [[cell for cell in cells if not cell.not_counted] for cells in evidence]
    missing = [_missing(check, cells) for check, cells in zip(claim.checks, counted, strict=True)]
    if any(not cell.agrees for cells in counted for cell in cells):
        verdict = CONTRADICTED
    else:
        verdict = NOT_YET_RUN if any(missing) else REPRODUCED
    return Verdict(claim, verdict, tuple(evidence), tuple(missing))


def _missing(check: Check, cells: Sequence[Evidence]) -> str:
    if len(cells) >= check.cells:
        return ""
    return f"{check.measure}: {len(cells)} of {check.cells} cells with at least {check.seeds} seeds"


def _evidence(check: Check, kept: Sequence[Kept]) -> tuple[Evidence, ...]:
    """The cells that speak of it, those that count first."""
    found = []
    for runs in group([run for run in kept if check.speaks_of(run)]):
        measured = [(run, value) for run in runs if (value := MEASURES[check.measure](run)) is not None]
        counted = [(run, value) for run, value in measured if check.counts(run)]
        enough = len({run.record["seed"] for run, _ in counted}) >= check.seeds
        shown = counted if enough else measured
        if not shown:
            continue
        low, high = check.bounds(runs[0])
        found.append(
            Evidence(
                cell=cell_of(runs),
                seeds=tuple(run.record["seed"] for run, _ in shown),
                values=tuple(value for _, value in shown),
                within=tuple(low <= value.value <= high for _, value in shown),
                bounds=(low, high),
                not_counted="" if enough else _why_not(check, len(counted), len(measured)),
            )
        )
    return tuple(sorted(found, key=lambda cell: bool(cell.not_counted)))


def _why_not(check: Check, n_counted: int, n_measured: int) -> str:
    if n_measured < check.seeds:
        return f"{n_measured} of {check.seeds} seeds"
    wanted = " and ".join(name.replace("_", " ") for name in check.given)
    return f"{n_measured - n_counted} of {n_measured} seeds miss the condition on {wanted}"


def group(kept: Sequence[Kept]) -> list[list[Kept]]:
    """Runs that differ in nothing but the seed side by side, in its order."""
    cells: dict[str, list[Kept]] = {}
    for run in kept:
        cells.setdefault(run_id({**run.config, "seed": None}), []).append(run)
    return [sorted(runs, key=lambda run: run.record["seed"]) for runs in cells.values()]


def cell_of(runs: Sequence[Kept]) -> str:
    """What the runs of a cell trained, in words."""
    config = runs[0].config
    task = config["task"]
    graphs = "new graphs" if task["train_graphs"] is None else f"{task['train_graphs']:,} graphs"
    return (
        f"{config['objective']['name']}, {config['model']['name']}, {graph_name(dict(config))} N={task['n_values']}, "
        f"{graphs}, {samples_text(runs)}"
    )
