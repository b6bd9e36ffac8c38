"""Measures and facts of a kept run for claims: numbers to compare (`MEASURES`), and facts to select runs by (`FACTS`)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pitfalls.results.kept import Kept
from pitfalls.results.statistics import blind_guess
from pitfalls.runs.counts import FIRST_HOP, Count


@dataclass(frozen=True)
class Value:
    """A measured number. If it is a share, it has its counts."""

    value: float
    k: int | None = None
    n: int | None = None


Measure = Callable[[Kept], Value | None]


def _share(count: Any) -> Value | None:
    """Return a count as a share, or None if n is 0."""
    return Value(count.k / count.n, count.k, count.n) if isinstance(count, Count) and count.n else None


def _test(name: str) -> Measure:
    return lambda kept: _share(getattr(kept.record.test, name))


def _train(name: str) -> Measure:
    return lambda kept: _share(getattr(kept.record.evaluation.get("train"), name, None))


def first_hop_entropy_gap(kept: Kept) -> Value | None:
    """Return |entropy of the first hop - ln d| in nats."""
    entropies = kept.entropies
    return None if entropies is None else Value(abs(entropies[FIRST_HOP] - math.log(kept.degree)))


def other_entropy(kept: Kept) -> Value | None:
    """Return the largest mean entropy of a position besides the first hop, in nats."""
    entropies = kept.entropies
    return None if entropies is None else Value(max(e for i, e in enumerate(entropies) if i != FIRST_HOP))


def verifier_gain(kept: Kept) -> Value | None:
    """Return the largest gain of a verifier: over all k, the share solved within k answers minus that of k blind guesses."""
    probe = kept.record.probes.verifier
    if probe is None:
        return None
    return Value(max((count.share or 0.0) - blind_guess(kept.degree, int(k)) for k, count in probe.solved.items()))


def learned_backwards(kept: Kept) -> Value | None:
    """Return 1 if the tokens between start and goal were learned from right to left, else 0. Learned all at once counts as 0.

    Start and goal are left out, because both are copied from the prompt.
    """
    probe = kept.record.probes.learning_order
    if probe is None or len(probe.samples) < 4:
        return None
    samples = [math.inf if n is None else n for n in probe.samples[1:-1]]
    return Value(float(samples == sorted(samples, reverse=True) and samples[-1] < samples[0]))


def arm_following(kept: Kept) -> Value | None:
    """Return the share of answers that follow a wrong arm after it was forced as the first hop."""
    probe = kept.record.probes.arm_following
    return None if probe is None else _share(probe.follows)


def first_hop_child(kept: Kept) -> Value | None:
    """Return the share of first hops that are a child of the start, right or wrong. A guess of an arm needs this lookup."""
    probe = kept.record.probes.first_hop
    return None if probe is None else _share(Count(probe.right.k + probe.other_child.k, probe.right.n))


def wrong_at_first_hop(kept: Kept) -> Value | None:
    """Return the share of wrong answers whose first hop is wrong, or None if there are no wrong answers."""
    exact, hop = kept.record.test.exact_match, kept.record.test.first_hop
    return _share(Count(hop.n - hop.k, exact.n - exact.k)) if exact.n else None


def other_positions(kept: Kept) -> Value | None:
    """Return the lowest accuracy under teacher forcing of the positions besides the first hop."""
    return None if kept.other_positions is None else Value(kept.other_positions)


MEASURES: dict[str, Measure] = {
    "exact_match": _test("exact_match"),
    "first_hop": _test("first_hop"),
    "train_exact_match": _train("exact_match"),
    "other_positions": other_positions,
    "arm_following": arm_following,
    "first_hop_child": first_hop_child,
    "wrong_at_first_hop": wrong_at_first_hop,
    "first_hop_entropy_gap": first_hop_entropy_gap,
    "other_entropy": other_entropy,
    "verifier_gain": verifier_gain,
    "learned_backwards": learned_backwards,
}

FAMILIES = {"gpt2": "transformer", "gpt_conv": "transformer", "mamba": "mamba", "mamba2": "mamba", "pretrained": "pretrained"}

FACTS: dict[str, Callable[[Kept], Any]] = {
    "objective": lambda kept: kept.objective,
    "family": lambda kept: FAMILIES.get(kept.config.architecture, kept.config.architecture),
    "model": lambda kept: kept.model,
    "regime": lambda kept: "online" if kept.config.task.train_graphs is None else "fixed",
    "degree": lambda kept: kept.degree,
    "path_length": lambda kept: kept.config.task.path_length,
    "samples": lambda kept: kept.record.samples_seen,
}
"""Facts that ``where`` can name. Its conditions are a value, a list of values, or ``{at_least: ..., at_most: ...}``."""
