"""How a training step grows, from ``results/scaling/measured.json`` (``scripts/benchmark.py --scaling``): tables and a figure."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pitfalls.results.formats import Table
from pitfalls.results.plotting import house_style, save, style, subplots

Row = Mapping[str, Any]


def tables(measured: Row) -> dict[str, Table]:
    """``steps``: every point; ``attention``: attention beside the MLP by length."""
    where = f"{measured['hardware']['cpu']}, {measured['hardware']['n_cpus']} cores, load {measured['load']:.1f}"
    about = (
        f"{_largest(measured['largest'])} One axis at a time, everything else as in: {', '.join(measured['base'])}; training in "
        f"{measured['precision']}. Growth: the exponent between a row and the one before, 1 being proportional. Medians of "
        f"{measured['rounds']} rounds; {where}."
    )
    overtaking = f"{_overtaking(measured['attention'])} Forward and backward in {measured['precision']}, each by itself; {where}."
    return {
        "steps": Table("What a training step costs", STEPS, _steps(measured["points"]), about),
        "attention": Table("Attention and MLP of the blocks", ATTENTION, _attention(measured["attention"]), overtaking),
    }


STEPS = (
    "axis",
    "value",
    "tokens",
    "seconds per step",
    "lowest to highest",
    "growth of time",
    "peak memory, MB",
    "growth of memory",
)
ATTENTION = ("path length", "tokens", "attention, s", "MLP, s", "attention / MLP")


def _steps(points: Sequence[Row]) -> tuple[tuple[str, ...], ...]:
    before: dict[str, Row] = {}
    rows = []
    for point in points:
        last = before.get(point["axis"])
        rows.append(
            (
                point["axis"],
                str(point["value"]),
                str(point["tokens"]),
                f"{point['step_s']:.3f}",
                f"{point['lowest_s']:.3f} to {point['highest_s']:.3f}",
                _exponent(last, point, "step_s"),
                f"{point['peak_mb']:.0f}",
                _exponent(last, point, "peak_mb"),
            )
        )
        before[point["axis"]] = point
    return tuple(rows)


def _exponent(before: Row | None, point: Row, name: str) -> str:
    if before is None or not before[name]:
        return "-"
    return f"{math.log(point[name] / before[name]) / math.log(point['value'] / before['value']):.2f}"


def _attention(rows: Sequence[Row]) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (
            str(row["path_length"]),
            str(row["tokens"]),
            f"{row['attention_s']:.3f}",
            f"{row['mlp_s']:.3f}",
            f"{row['attention_s'] / row['mlp_s']:.2f}",
        )
        for row in rows
    )


def crossing(rows: Sequence[Row]) -> float | None:
    """Tokens at which attention begins to take longer than the MLP, between two rows, log-log; None if no two rows show it."""
    for a, b in pairwise(rows):
        left, right = (math.log(row["attention_s"] / row["mlp_s"]) for row in (a, b))
        if left < 0 <= right:
            return float(a["tokens"] * (b["tokens"] / a["tokens"]) ** (left / (left - right)))
    return None


def _overtaking(rows: Sequence[Row]) -> str:
    tokens = crossing(rows)
    if tokens is not None:
        return f"Attention overtakes the MLP at {tokens:.0f} tokens."
    if all(row["attention_s"] >= row["mlp_s"] for row in rows):
        return f"Attention takes longer than the MLP at every length here, from {rows[0]['tokens']} tokens on."
    return "Attention overtakes the MLP at no length here."


def _largest(point: Row) -> str:
    size = f"{point['tokens']:,} tokens, {point['peak_mb']:,.0f} MB, {point['step_s']:.1f} s per step"
    return f"The largest G(2,l) that trains, one sample at a time, in a process of 8 GB, to 5 %: l = {point['value']:,} ({size})."


@house_style
def draw(measured: Row, path: Path) -> None:
    """Time and memory of a step against each axis, log-log, relative to the lowest value of the axis."""
    axes = list(dict.fromkeys(point["axis"] for point in measured["points"]))
    figure, panels = subplots(1, 2, figsize=(10, 4.4))
    for panel, name, title in zip(panels, ("step_s", "peak_mb"), ("seconds per step", "peak memory, MB"), strict=True):
        for i, axis in enumerate(axes):
            rows = [point for point in measured["points"] if point["axis"] == axis]
            colour, dash, marker, _ = style(i)
            x, y = [row["value"] / rows[0]["value"] for row in rows], [row[name] for row in rows]
            panel.plot(
                x,
                y,
                color=colour,
                linestyle=dash,
                marker=marker,
                markersize=4,
                linewidth=1.4,
                label=f"{axis}, from {rows[0]['value']}",
            )
        panel.set(xscale="log", yscale="log", title=title, xlabel="value over the lowest of its axis")
    panels[0].legend(frameon=False, fontsize=8)
    save(figure, path)
