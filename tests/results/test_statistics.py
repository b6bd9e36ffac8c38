import pytest
from scipy.stats import binomtest

from pitfalls.results.statistics import wilson


@pytest.mark.parametrize(("k", "n"), [(0, 1000), (1000, 1000), (3, 50), (1, 1), (10_000, 20_000)])
def test_wilson_equals_scipy(k, n):
    """The normal approximation has no width at 0/n and n/n, where this project's numbers live."""
    interval = binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k, n) == pytest.approx((interval.low, interval.high), abs=1e-12)
    assert wilson(k, n)[0] < wilson(k, n)[1]


@pytest.mark.parametrize(("k", "n"), [(0, 0), (2, 1), (-1, 3)])
def test_wilson_of_no_share_raises(k, n):
    with pytest.raises(ValueError, match="no share"):
        wilson(k, n)
