"""Estimates with 95 % intervals: Wilson intervals for shares, bootstrap intervals for means."""

from collections.abc import Iterable
from statistics import fmean

from pitfalls.language.lab_record import Estimate
from pitfalls.results.statistics import bootstrap, wilson


def share(values: Iterable[float]) -> Estimate | None:
    """Return the mean of values between 0 and 1 with its Wilson interval, or None if there are no values."""
    found = [float(value) for value in values]
    if not found:
        return None
    low, high = wilson(sum(found), len(found))
    least_high, most_low = wilson(0, len(found))[1], wilson(len(found), len(found))[0]
    return Estimate(fmean(found), low, high, len(found), least_high, most_low)


def mean(values: Iterable[float | None]) -> Estimate | None:
    """Return the mean of the values that are not None with its bootstrap interval, or None if there are none."""
    found = [float(value) for value in values if value is not None]
    if not found:
        return None
    low, high = bootstrap(found)
    return Estimate(fmean(found), low, high, len(found))


def sure_mean(values: Iterable[float]) -> Estimate:
    """Return the estimate of `mean`, which is never None here.

    Raises:
        ValueError: there are no values.
    """
    found = mean(values)
    if found is None:
        raise ValueError("no values")
    return found
