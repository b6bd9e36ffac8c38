"""Confidence intervals for shares and means, and the score of blind guesses."""

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


def blind_guess(degree: int, k: int) -> float:
    """Return the probability that the right one of d arms is among k blind guesses: 1 - (1 - 1/d)^k."""
    return 1 - (1 - 1 / degree) ** k
