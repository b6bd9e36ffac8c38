import itertools
import math

import numpy as np
import pytest
from scipy.stats import binomtest

from pitfalls.results.statistics import blind_guess, bootstrap, mcnemar, paired_difference, wilson


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


@pytest.mark.parametrize(
    ("counts", "interval"),
    [
        ((59, 6, 16, 80), (-0.1186, -0.0046)),  # Cavo et al. 2012, as the R package contingencytables has it in its tests
        ((1, 1, 7, 12), (-0.507, -0.026)),  # Bentur et al. 2009: 12 - 7 is below n/2, so the correlation counts as 0
        ((14, 5, 0, 22), (0.011, 0.226)),  # Altman et al. 2000, Statistics with Confidence, table 6.2
    ],
)
def test_the_paired_interval_is_the_published_one(counts, interval):
    """Guards against a correlation with the wrong sign or without the correction, and bounds of a and b that are swapped."""
    assert paired_difference(*counts) == pytest.approx(interval, abs=6e-4)


def test_pairs_that_exclude_each_other_widen_the_interval():
    """Guards against a correction of negative correlations. Both shares are 1/2, and (5*5 - 20*20) / 25^2 is -0.6."""
    half = wilson(25, 50)[1] - 0.5
    assert paired_difference(5, 20, 20, 5) == pytest.approx((-half * math.sqrt(3.2), half * math.sqrt(3.2)))


def test_the_paired_interval_turns_with_its_runs():
    low, high = paired_difference(40, 30, 5, 25)
    assert paired_difference(40, 5, 30, 25) == pytest.approx((-high, -low))


def test_pairs_that_go_together_narrow_the_interval():
    """Guards against an interval for two separate samples, which hides small differences of two models on the same graphs."""
    low, high = paired_difference(500, 12, 2, 486)
    separate = math.hypot(0.512 - wilson(512, 1000)[0], wilson(502, 1000)[1] - 0.502)
    assert 0 < low < 0.01 < high
    assert 0.01 - separate < 0


@pytest.mark.parametrize("counts", [(5, 0, 0, 0), (0, 5, 0, 0), (0, 0, 5, 0), (0, 0, 0, 5), (1, 0, 0, 1), (50, 0, 0, 50)])
def test_the_paired_interval_of_runs_that_never_or_always_differ(counts):
    """Guards against a division by 0, and against bounds beyond -1 and 1."""
    low, high = paired_difference(*counts)
    assert -1 <= low < (counts[1] - counts[2]) / sum(counts) + 1e-12
    assert (counts[1] - counts[2]) / sum(counts) - 1e-12 < high <= 1


def test_the_paired_interval_of_nothing_raises():
    with pytest.raises(ValueError, match="no share"):
        paired_difference(0, 0, 0, 0)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"), [(1, 7, 18 / 256), (7, 1, 18 / 256), (0, 0, 1.0), (3, 3, 1.0), (0, 10, 2 / 1024)]
)
def test_mcnemar_counts_the_tails_of_a_fair_coin(only_a, only_b, p):
    """Guards against a one-sided p: of 8 tosses, 1 + 8 of 256 outcomes lie at each end (Bentur 2009: p = 0.070)."""
    assert mcnemar(only_a, only_b) == pytest.approx(p)
