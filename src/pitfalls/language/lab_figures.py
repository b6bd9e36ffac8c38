"""The figures of the degeneration lab, from its record."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pitfalls.language.lab_record import Estimate, LabRecord
from pitfalls.language.lab_tables import KINDS
from pitfalls.results.plotting import house_style, save, style, subplots


def _band(axes: Axes, x: Sequence[float], estimates: Sequence[Estimate], i: int, label: str) -> None:
    """Draw a line with its interval, in the i-th style."""
    colour, dash, marker, _ = style(i)
    axes.plot(x, [e.value for e in estimates], color=colour, linestyle=dash, marker=marker, markersize=4, label=label)
    axes.fill_between(x, [e.low for e in estimates], [e.high for e in estimates], color=colour, alpha=0.15, linewidth=0)


@house_style
def draw_copies(record: LabRecord) -> Figure:
    """Draw entropy and probability by copy, for greedy loops and for units repeated by hand, and the tokens before a loop."""
    figure, panels = subplots(1, 3, figsize=(12, 3.8))
    titles = {"p": "probability of the copy's tokens", "entropy": "entropy, nats"}
    for panel, (name, title) in zip(panels, titles.items(), strict=False):
        for i, (kind, label) in enumerate(KINDS.items()):
            rows = record.units[kind]
            _band(panel, [row.before + 1 for row in rows], [getattr(row, name) for row in rows], i, label)
        if own := record.copies.rows:
            _band(panel, [row.copy for row in own], [getattr(row, name) for row in own], 3, "greedy loops")
        panel.set(title=title, xlabel="copy")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=4, frameon=False, fontsize=8)
    shown = [(row.offset, row.entropy, row.end) for row in record.onset.curve if row.entropy and row.end]
    _band(panels[2], [offset for offset, *_ in shown], [entropy for _, entropy, _ in shown], 3, "entropy, nats")
    if any(end.value for *_, end in shown):
        _band(panels[2], [offset for offset, *_ in shown], [end for *_, end in shown], 1, "probability of end-of-text")
    panels[2].axvline(0, color="black", linewidth=0.8, linestyle=":")
    panels[2].set(title="around the start of a greedy loop", xlabel="tokens from its first copy")
    figure.legend(*panels[2].get_legend_handles_labels(), loc="outside lower right", ncols=2, frameon=False, fontsize=8)
    return figure


@house_style
def draw_context(record: LabRecord) -> Figure:
    """Draw loss and entropy against context, and the tail against entropy."""
    figure, panels = subplots(1, 2, figsize=(9, 3.6))
    lengths = [row.length for row in record.context]
    for i, (name, label) in enumerate({"nll": "loss", "entropy": "entropy", "kl": "KL from the longest"}.items()):
        _band(panels[0], lengths, [getattr(row, name) for row in record.context], i, label)
    panels[0].set(xscale="log", title="prose, the same targets", xlabel="tokens of context", ylabel="nats")
    panels[0].legend(frameon=False, fontsize=8)
    bins = record.tail.bins
    colour, dash, marker, _ = style(0)
    x = [b.entropy for b in bins]
    panels[1].plot(x, [b.tails[1] for b in bins], color=colour, linestyle=dash, marker=marker, markersize=4, label="median")
    panels[1].fill_between(
        x,
        [b.tails[0] for b in bins],
        [b.tails[2] for b in bins],
        color=colour,
        alpha=0.15,
        linewidth=0,
        label="middle 80 % of contexts",
    )
    panels[1].set(title="mass outside of the 40 likeliest tokens", xlabel="entropy, nats")
    panels[1].legend(frameon=False, fontsize=8)
    return figure


@house_style
def draw_map(record: LabRecord) -> Figure:
    """Draw the shares of loops, text and noise over temperature and penalty."""
    temperatures = sorted({c.temperature for c in record.map})
    penalties = sorted({c.penalty for c in record.map})
    cells = {(c.temperature, c.penalty): c for c in record.map}
    figure, panels = subplots(1, 3, figsize=(11, 3.4), sharey=True)
    for panel, kind in zip(panels, ("loop", "text", "noise"), strict=True):
        grid = [[getattr(cells[t, p], kind) for t in temperatures] for p in penalties]
        panel.imshow(grid, origin="lower", cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for y, row in enumerate(grid):
            for x, value in enumerate(row):
                panel.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=8, color="white" if value > 0.6 else "black")
        panel.set(title=kind, xlabel="temperature", xticks=range(len(temperatures)), yticks=range(len(penalties)))
        panel.set_xticklabels([f"{t:g}" for t in temperatures])
        panel.set_yticklabels([f"{p:g}" for p in penalties])
    panels[0].set_ylabel("repetition penalty")
    return figure


FIGURES = {"copies": draw_copies, "context": draw_context, "map": draw_map}
"""The figures by the names of their files."""


def write(record: LabRecord, folder: Path) -> None:
    """Write all figures as PNG and SVG into a folder."""
    for name, draw in FIGURES.items():
        for suffix in ("png", "svg"):
            save(draw(record), folder / f"{name}.{suffix}")
