"""Confidence intervals for shares, means and paired differences, a paired test, and the score of blind guesses."""

import math
from collections.abc import Sequence

import numpy as np

Z_95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""
N_RESAMPLES = 2000


def wilson(k: float, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share k/n (Wilson 1927). Its width is above 0 also at 0/n and n/n.

    If each of the n observations is itself a share over several draws, k is the sum of these shares.

    Raises:
        ValueError: n is 0 or k is not in 0..n.
    """
    if n < 1 or not 0 <= k <= n:
        raise ValueError(f"no share: k={k}, n={n}")
    p, z2 = k / n, Z_95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of a mean (Efron 1979), drawn from a fixed seed.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values")
    draws = np.random.default_rng(0).integers(len(values), size=(N_RESAMPLES, len(values)))
    low, high = np.quantile(np.asarray(values, dtype=float)[draws].mean(1), (0.025, 0.975))
    return float(low), float(high)


def paired_difference(both: int, only_a: int, only_b: int, neither: int) -> tuple[float, float]:
    """Return the 95 % interval of the difference a - b of two shares that were counted on the same n items.

    It is method 10 of Newcombe (1998, Statistics in Medicine 17, 2635-2650): the Wilson intervals of the two shares are
    joined by the correlation of the pairs. A positive correlation is lowered by n/2, a correction for continuity.

    Args:
        both: number of items on which a and b are right.
        only_a: number of items on which a alone is right.
        only_b: number of items on which b alone is right.
        neither: number of items on which both are wrong.

    Raises:
        ValueError: there are no items.
    """
    n = both + only_a + only_b + neither
    right_a, right_b = both + only_a, both + only_b
    a, b = right_a / n if n else 0.0, right_b / n if n else 0.0
    (low_a, high_a), (low_b, high_b) = wilson(right_a, n), wilson(right_b, n)
    product = right_a * (n - right_a) * right_b * (n - right_b)
    excess = both * neither - only_a * only_b
    correlation = (max(excess - n / 2, 0) if excess > 0 else excess) / math.sqrt(product) if product else 0.0

    def distance(of_a: float, of_b: float) -> float:
        return math.sqrt(max(0.0, of_a**2 - 2 * correlation * of_a * of_b + of_b**2))

    return a - b - distance(a - low_a, high_b - b), a - b + distance(high_a - a, b - low_b)


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the two-sided p-value of McNemar's exact test: that a and b are equally often right alone.

    Only the items on which one of the two is right tell them apart. If there are none, p is 1.
    """
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def blind_guess(degree: int, k: int) -> float:
    """Return the probability that the right one of d arms is among k blind guesses: 1 - (1 - 1/d)^k."""
    return 1 - (1 - 1 / degree) ** k
