"""Intervals for counts."""

import math

Z_95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""


def wilson(k: int, n: int) -> tuple[float, float]:
    """The Wilson score interval (Wilson 1927) of a share k/n at 95 %; at 0/n and n/n it keeps a width.

    Raises:
        ValueError: n is 0 or k is not in 0..n.
    """
    if n < 1 or not 0 <= k <= n:
        raise ValueError(f"no share: k={k}, n={n}")
    p, z2 = k / n, Z_95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
