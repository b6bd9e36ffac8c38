"""Values with intervals at 95 %: shares have Wilson intervals, means have bootstrap intervals."""

from collections.abc import Iterable
from statistics import fmean

from pitfalls.results.statistics import bootstrap, wilson

Estimate = dict[str, float]
"""``value``, ``low``, ``high`` and ``n``. A share also has ``least_high``, the upper end of its interval if all values were 0,
and ``most_low``, the lower end if all were 1."""


def share(values: Iterable[float]) -> Estimate | None:
    """Return the mean of values between 0 and 1 with its Wilson interval; None without values."""
    found = [float(value) for value in values]
    if not found:
        return None
    low, high = wilson(sum(found), len(found))
    surest = {"least_high": wilson(0, len(found))[1], "most_low": wilson(len(found), len(found))[0]}
    return {"value": fmean(found), "low": low, "high": high, "n": len(found)} | surest


def mean(values: Iterable[float | None]) -> Estimate | None:
    """Return the mean of the values that are not None with its bootstrap interval; None if there are none."""
    found = [float(value) for value in values if value is not None]
    if not found:
        return None
    low, high = bootstrap(found)
    return {"value": fmean(found), "low": low, "high": high, "n": len(found)}
