"""Values with intervals at 95 %: shares have Wilson intervals, means bootstrap intervals; and rank correlation."""

import math
from collections.abc import Iterable, Sequence
from statistics import fmean

from pitfalls.results.statistics import bootstrap, wilson

Estimate = dict[str, float]
"""``value``, ``low``, ``high``, ``n``; of a share, also ``least_high`` and ``most_low``."""


def share(values: Iterable[float]) -> Estimate | None:
    """Of values between 0 and 1; with the bounds of an interval if all of them were 0, and if all were 1."""
    found = [float(value) for value in values]
    if not found:
        return None
    low, high = wilson(sum(found), len(found))
    surest = {"least_high": wilson(0, len(found))[1], "most_low": wilson(len(found), len(found))[0]}
    return {"value": fmean(found), "low": low, "high": high, "n": len(found)} | surest


def mean(values: Iterable[float | None]) -> Estimate | None:
    """Of what is there."""
    found = [float(value) for value in values if value is not None]
    if not found:
        return None
    low, high = bootstrap(found)
    return {"value": fmean(found), "low": low, "high": high, "n": len(found)}


def quantiles(values: Sequence[float]) -> list[float]:
    """The 10 %, 50 % and 90 % points."""
    ordered = sorted(values)
    return [ordered[round(q * (len(ordered) - 1))] for q in (0.1, 0.5, 0.9)]


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Rank correlation (Spearman 1904), ties at their mean rank; 0 where one side is constant."""
    a, b = _ranks(x), _ranks(y)
    centre = (len(a) - 1) / 2
    products = sum((i - centre) * (j - centre) for i, j in zip(a, b, strict=True))
    squares = sum((i - centre) ** 2 for i in a) * sum((j - centre) ** 2 for j in b)
    return products / math.sqrt(squares) if squares else 0.0


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(range(len(values)), key=lambda i: values[i])
    ranks, first = [0.0] * len(values), 0
    while first < len(ordered):
        last = first
        while last + 1 < len(ordered) and values[ordered[last + 1]] == values[ordered[first]]:
            last += 1
        for i in ordered[first : last + 1]:
            ranks[i] = (first + last) / 2
        first = last + 1
    return ranks
