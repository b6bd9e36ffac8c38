import itertools
import math

import numpy as np
import pytest
from scipy.stats import binomtest

from pitfalls.results.statistics import blind_guess, bootstrap, wilson


@pytest.mark.parametrize(("k", "n"), [(0, 1000), (1000, 1000), (3, 50), (1, 1), (10_000, 20_000)])
def test_wilson_equals_scipy(k, n):
    """Guards against the normal approximation, which has no width at 0/n and n/n, where most of this project's numbers are."""
    interval = binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k, n) == pytest.approx((interval.low, interval.high), abs=1e-12)
    assert wilson(k, n)[0] < wilson(k, n)[1]


@pytest.mark.parametrize(("k", "n"), [(0, 0), (2, 1), (-1, 3)])
def test_wilson_of_no_share_raises(k, n):
    with pytest.raises(ValueError, match="no share"):
        wilson(k, n)


@pytest.mark.parametrize(("degree", "k", "share"), [(2, 1, 0.5), (2, 8, 1 - 2**-8), (5, 1, 0.2), (3, 2, 5 / 9), (4, 0, 0.0)])
def test_blind_guesses_of_an_arm(degree, k, share):
    assert blind_guess(degree, k) == pytest.approx(share, abs=1e-12)


def test_blind_guesses_are_those_of_a_blind_man():
    """Guards against a formula that is wrong for more than two arms: all sequences of two guesses among three are counted."""
    guesses = list(itertools.product(range(3), repeat=2))
    assert blind_guess(3, 2) == pytest.approx(sum(0 in pair for pair in guesses) / len(guesses))


def test_bootstrap_holds_95_percent():
    """Guards against quantiles of another level: of many values of one distribution, the mean is normal, +- 1.96 errors."""
    values = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    half = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    low, high = bootstrap(values.tolist())
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.08 * half)


def test_bootstrap_repeats_and_holds_the_mean():
    low, high = bootstrap([0.0, 1.0, 1.0, 0.0])
    assert (low, high) == bootstrap([0.0, 1.0, 1.0, 0.0])
    assert 0 <= low < 0.5 < high <= 1
    assert bootstrap([0.3]) == (0.3, 0.3)
    with pytest.raises(ValueError, match="no values"):
        bootstrap([])
