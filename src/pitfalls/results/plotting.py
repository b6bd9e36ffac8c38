"""The common style of all figures (colours, line styles, titles), and functions that write PNG and SVG with repeatable bytes.

Figures are made without pyplot, and matplotlib's settings change only while a figure is drawn. A notebook's settings stay.
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
"""Styles: colour (Okabe & Ito), dash, marker and hatch. In black and white, the last three distinguish lines and bars."""
SETTINGS: Any = {"svg.hashsalt": "pitfalls", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
house_style = matplotlib.rc_context(SETTINGS)
"""Decorator that sets matplotlib's settings while a figure is drawn or written."""
CHARACTERS_PER_INCH = 11
"""Number of characters of a title per inch of the figure's width."""
LONG_NUMBER = re.compile(r"(\.\d\d)\d+")


def subplots(n_rows: int, n_columns: int, **options: Any) -> tuple[Figure, Any]:
    """Return a figure and its axes, as `matplotlib.pyplot.subplots` does, but without a window.

    Args:
        n_rows: number of rows of axes.
        n_columns: number of columns of axes.
        options: ``figsize`` in inches, and the arguments of `Figure.subplots`.
    """
    figure = Figure(figsize=options.pop("figsize"), layout="constrained")
    ratios = {"height_ratios": options.pop("height_ratios")} if "height_ratios" in options else {}
    return figure, figure.subplots(n_rows, n_columns, **options, **ratios)


@house_style
def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG or SVG, without a date.

        PNG files have 256 colours, which saves two thirds of the bytes. SVG coordinates are rounded to a hundredth of a point.

    Save a figure only once: matplotlib's layout depends on earlier saves, and equal figures need equal bytes.
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
    """Set the title of a figure, broken into lines that fit its width."""
    figure.suptitle(textwrap.fill(title, int(CHARACTERS_PER_INCH * figure.get_figwidth())), fontsize=10)


def style(i: int) -> Style:
    """Return the i-th of 36 styles. After six styles the colours repeat, with other dashes, markers and hatches."""
    n = len(STYLES)
    shifted = STYLES[(i + i // n) % n]
    return (STYLES[i % n][0], *shifted[1:])
