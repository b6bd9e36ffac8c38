"""What a claim can ask of a kept run: numbers to compare, and facts to choose runs by."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pitfalls.results.kept import FIRST_HOP, Kept, share


@dataclass(frozen=True)
class Value:
    """A measured number, with its counts where it is a share."""

    value: float
    k: int | None = None
    n: int | None = None


Measure = Callable[[Kept], Value | None]


def _share(count: Mapping[str, int] | None) -> Value | None:
    value = share(count) if count else None
    return None if value is None or count is None else Value(value, count["k"], count["n"])


def _test(name: str) -> Measure:
    return lambda kept: _share(kept.record["evaluation"]["test"][name])


def _train(name: str) -> Measure:
    return lambda kept: _share(kept.record["evaluation"].get("train", {}).get(name))


def _probe(probe: str, name: str) -> Measure:
    return lambda kept: _share((kept.record["probes"][probe] or {}).get(name))


def first_hop_entropy_gap(kept: Kept) -> Value | None:
    """|entropy of the first hop - ln d|, nats."""
    entropies = kept.entropies
    return None if entropies is None else Value(abs(entropies[FIRST_HOP] - math.log(kept.degree)))


def other_entropy(kept: Kept) -> Value | None:
    """The largest mean entropy of a position besides the first hop, nats."""
    entropies = kept.entropies
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
