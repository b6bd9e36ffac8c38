"""A table as text, written as Markdown, CSV and LaTeX (booktabs); the same table gives the same bytes."""

import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Table:
    """A title, a header, rows of text (lines within a cell are kept), and what a reader must know to read them."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"table {self.title}: a row of {len(row)} cells under {len(self.header)} headings: {row}")


def to_markdown(table: Table) -> str:
    """For GitHub and the terminal."""
    lines = [table.header, tuple("---" for _ in table.header), *table.rows]
    body = "\n".join(f"| {' | '.join(map(_markdown_cell, line))} |" for line in lines)
    return f"# {table.title}\n\n{body}\n\n{table.note}".rstrip() + "\n"


def _markdown_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "<br>")


def to_csv(table: Table) -> str:
    """Header and rows; the note is left to the other formats."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([table.header, *table.rows])
    return out.getvalue()


LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "→": r"$\to$",
    "<": r"$<$",
    ">": r"$>$",
    "\n": r" \newline ",
}


LATEX_WIDTH = r"0.3\linewidth"


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return re.sub("|".join(map(re.escape, LATEX)), lambda found: LATEX[found[0]], text)


def to_latex(table: Table) -> str:
    r"""A ``table`` environment; needs ``\usepackage{booktabs}``."""
    columns = "".join(_latex_column([row[i] for row in table.rows]) for i in range(len(table.header)))
    lines = [" & ".join(map(escape_latex, row)) + r" \\" for row in (table.header, *table.rows)]
    caption = escape_latex(" ".join(filter(None, (f"{table.title}.", table.note.replace("\n", " ").strip()))))
    return "\n".join(
        (
            r"\begin{table}",
            r"\centering",
            r"\small",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{{caption}}}",
            r"\end{table}",
            "",
        )
    )


def _latex_column(cells: list[str]) -> str:
    """Numbers to the right, words to the left, and a column of fixed width for what needs several lines."""
    if cells and all(map(_is_number, cells)):
        return "r"
    return f"p{{{LATEX_WIDTH}}}" if any("\n" in cell or len(cell) > 40 for cell in cells) else "l"


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"-|[\d.,]+( k)?", text))


FORMATS: dict[str, Callable[[Table], str]] = {"md": to_markdown, "csv": to_csv, "tex": to_latex}


def write(table: Table, stem: Path) -> None:
    """Write ``stem.md``, ``stem.csv`` and ``stem.tex``."""
    for suffix, render in FORMATS.items():
        stem.with_name(f"{stem.name}.{suffix}").write_text(render(table))
