"""How all figures look, and how they are written: colours, line styles, titles, PNG and SVG files with repeatable bytes.

Figures are made without pyplot, and matplotlib's settings change only while a figure is drawn: a notebook's own stay as they are.
"""

import io
import re
import textwrap
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from PIL import Image

Style = tuple[str, str | tuple[int, tuple[int, ...]], str, str]
STYLES: tuple[Style, ...] = (
    ("#0072B2", "-", "o", ""),
    ("#D55E00", "--", "s", "//"),
    ("#009E73", "-.", "^", ".."),
    ("#CC79A7", ":", "D", "xx"),
    ("#E69F00", (0, (5, 1, 1, 1)), "v", "\\\\"),
    ("#56B4E9", (0, (3, 1, 1, 1, 1, 1)), "P", "++"),
)
"""Colour (Okabe & Ito), dash, marker and hatch; in black and white the latter three tell lines and bars apart."""
SETTINGS: Any = {"svg.hashsalt": "pitfalls", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
house_style = matplotlib.rc_context(SETTINGS)
"""Decorator: matplotlib's settings while a figure is drawn or written."""
CHARACTERS_PER_INCH = 11
"""Characters of a title per inch of the figure's width."""
LONG_NUMBER = re.compile(r"(\.\d\d)\d+")


def subplots(n_rows: int, n_columns: int, **options: Any) -> tuple[Figure, Any]:
    """Return a figure and its axes, as `matplotlib.pyplot.subplots` does, but known to no window.

    Args:
        n_rows: rows of axes.
        n_columns: columns of axes.
        options: ``figsize`` (inches), and what `Figure.subplots` takes.
    """
    figure = Figure(figsize=options.pop("figsize"), layout="constrained")
    ratios = {"height_ratios": options.pop("height_ratios")} if "height_ratios" in options else {}
    return figure, figure.subplots(n_rows, n_columns, **options, **ratios)


@house_style
def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG (256 colours: a third of the bytes) or SVG (places to a hundredth of a point), undated.

    A figure is saved once: matplotlib's layout depends on what was saved before, and bytes have to repeat.
    """
    if path.suffix == ".svg":
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
        path.write_text(re.sub(r' (?:d|x|y)="[^"]*"', lambda places: LONG_NUMBER.sub(r"\1", places[0]), drawn.getvalue()))
    else:
        pixels = io.BytesIO()
        figure.savefig(pixels, dpi=130)
        Image.open(pixels).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def entitle(figure: Figure, title: str) -> None:
    """Set the title of a figure, in as many lines as its width asks for."""
    figure.suptitle(textwrap.fill(title, int(CHARACTERS_PER_INCH * figure.get_figwidth())), fontsize=10)


def style(i: int) -> Style:
    """Return the i-th of 36 styles: after six, the colours come again with other dashes, markers and hatches."""
    n = len(STYLES)
    shifted = STYLES[(i + i // n) % n]
    return (STYLES[i % n][0], *shifted[1:])
