"""Tables and a figure of how a training step grows, from ``results/scaling/measured.json`` (``scripts/benchmark.py scaling``)."""

import math
from collections.abc import Sequence
from itertools import pairwise

from matplotlib.figure import Figure

from pitfalls.report.measurements import AttentionTime, Scaling, ScalingPoint
from pitfalls.results.formats import Table
from pitfalls.results.plotting import house_style, style, subplots

STEPS_HEADER = ("size", "tokens", "seconds per step (range)", "growth of time", "peak memory, MB", "growth of memory")
ATTENTION_HEADER = ("path length", "tokens", "attention, s", "MLP, s", "attention / MLP")


def tables(scaling: Scaling) -> dict[str, Table]:
    """Return the tables ``steps``, with every point, and ``attention``, with attention beside the MLP by length."""
    where = f"{scaling.machine}, load {scaling.load:.1f}"
    about = (
        f"{_largest(scaling.largest)} One size changes at a time; everything else is as in {', '.join(scaling.base)}. Training "
        f"in {scaling.precision}. Growth is the exponent between a row and the one before: 1 is proportional. Medians of "
        f"{scaling.rounds} rounds. {where}."
    )
    about_attention = (
        f"{_overtaking(scaling.attention)} Forward and backward in {scaling.precision}. "
        f"Attention and MLP are each timed alone. {where}."
    )
    return {
        "steps": Table("What a training step costs", STEPS_HEADER, _steps(scaling.points), about),
        "attention": Table("Attention and MLP of the blocks", ATTENTION_HEADER, _attention(scaling.attention), about_attention),
    }


def _steps(points: Sequence[ScalingPoint]) -> tuple[tuple[str, ...], ...]:
    before: dict[str, ScalingPoint] = {}
    rows = []
    for point in points:
        last = before.get(point.axis)
        rows.append(
            (
                f"{point.axis} {point.value}",
                str(point.tokens),
                f"{point.step_s:.3f} ({point.lowest_s:.3f} to {point.highest_s:.3f})",
                _exponent((last.value, last.step_s), (point.value, point.step_s)) if last else "-",
                f"{point.peak_mb:.0f}",
                _exponent((last.value, last.peak_mb), (point.value, point.peak_mb)) if last else "-",
            )
        )
        before[point.axis] = point
    return tuple(rows)


def _exponent(before: tuple[float, float], now: tuple[float, float]) -> str:
    """Return the exponent e of y ~ x^e between two points (x, y), or a dash if the first y is 0."""
    if not before[1]:
        return "-"
    return f"{math.log(now[1] / before[1]) / math.log(now[0] / before[0]):.2f}"


def _attention(rows: Sequence[AttentionTime]) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (
            str(row.path_length),
            str(row.tokens),
            f"{row.attention_s:.3f}",
            f"{row.mlp_s:.3f}",
            f"{row.attention_s / row.mlp_s:.2f}",
        )
        for row in rows
    )


def crossing(rows: Sequence[AttentionTime]) -> float | None:
    """Return the number of tokens from which on attention takes longer than the MLP, by log-log interpolation between two rows.

    The result is None if attention overtakes the MLP between no two rows.
    """
    for a, b in pairwise(rows):
        left, right = (math.log(row.attention_s / row.mlp_s) for row in (a, b))
        if left < 0 <= right:
            return float(a.tokens * (b.tokens / a.tokens) ** (left / (left - right)))
    return None


def _overtaking(rows: Sequence[AttentionTime]) -> str:
    tokens = crossing(rows)
    if tokens is not None:
        return f"Attention overtakes the MLP at {tokens:.0f} tokens."
    if all(row.attention_s >= row.mlp_s for row in rows):
        return f"Attention takes longer than the MLP at every length here, from {rows[0].tokens} tokens on."
    return "Attention overtakes the MLP at no length here."


def _largest(point: ScalingPoint) -> str:
    return (
        f"The largest G(2,l) that trains in a process of 8 GB, one sample at a time, has l = {point.value:,}, right to 5 %. It "
        f"has {point.tokens:,} tokens and takes {point.peak_mb:,.0f} MB and {point.step_s:.1f} s per step."
    )


@house_style
def draw(scaling: Scaling) -> Figure:
    """Return a log-log figure of time and memory of a step against each size, relative to the smallest value of that size."""
    axes = list(dict.fromkeys(point.axis for point in scaling.points))
    figure, panels = subplots(1, 2, figsize=(10, 4.4))
    for panel, name, title in zip(panels, ("step_s", "peak_mb"), ("seconds per step", "peak memory, MB"), strict=True):
        for i, axis in enumerate(axes):
            points = [point for point in scaling.points if point.axis == axis]
            colour, dash, marker, _ = style(i)
            panel.plot(
                [point.value / points[0].value for point in points],
                [getattr(point, name) for point in points],
                color=colour,
                linestyle=dash,
                marker=marker,
                markersize=4,
                linewidth=1.4,
                label=f"{axis}, from {points[0].value}",
            )
        panel.set(xscale="log", yscale="log", title=title, xlabel="size, relative to its smallest value")
    panels[0].legend(frameon=False, fontsize=8)
    return figure
