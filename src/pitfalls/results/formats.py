"""Tables of text, and functions that write them as Markdown, CSV and LaTeX (booktabs). Equal tables give equal bytes."""

import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MOST_COLUMNS, LONGEST_CELL = 8, 120


@dataclass(frozen=True)
class Table:
    """A table of text: title, header, rows, and a note for the reader."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    shown: tuple[str, ...] = ()
    """The columns that Markdown, LaTeX and the page show. An empty tuple means all. The CSV always has all columns."""

    def __post_init__(self) -> None:
        if missing := set(self.shown) - set(self.header):
            raise ValueError(f"table {self.title}: no column {sorted(missing)[0]}; there are {', '.join(self.header)}")
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"table {self.title}: a row of {len(row)} cells under {len(self.header)} headings: {row}")

    def for_people(self) -> "Table":
        """Return the table with the columns in ``shown`` only.

        A very long cell is cut, because its length may depend on a user's runs. The CSV has the whole text.

        Raises:
            ValueError: it has more columns than fit on a page.
        """
        header = self.shown or self.header
        places = [self.header.index(name) for name in header]
        if len(header) > MOST_COLUMNS:
            raise ValueError(f"table {self.title}: {len(header)} columns; {MOST_COLUMNS} fit on a page, name those in `shown`")
        rows = tuple(tuple(_cut(row[place]) for place in places) for row in self.rows)
        return Table(self.title, header, rows, self.note)


def _cut(cell: str) -> str:
    return cell if len(cell) <= LONGEST_CELL else f"{cell[: LONGEST_CELL - 1]}…"


def to_markdown(table: Table) -> str:
    """Return the table in Markdown, for GitHub and the terminal."""
    table = table.for_people()
    lines = [table.header, tuple("---" for _ in table.header), *table.rows]
    body = "\n".join(f"| {' | '.join(map(_markdown_cell, line))} |" for line in lines)
    return f"# {table.title}\n\n{body}\n\n{table.note}".rstrip() + "\n"


def _markdown_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "<br>")


def to_csv(table: Table) -> str:
    """Return the table in CSV, with all columns and without the note."""
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
LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")
"""Pattern of a Markdown link. LaTeX shows only the link's text."""


def escape_latex(text: str) -> str:
    """Return the text with LaTeX's special characters escaped."""
    return re.sub("|".join(map(re.escape, LATEX)), lambda found: LATEX[found[0]], text)


def to_latex(table: Table) -> str:
    r"""Return a ``table`` environment. It needs ``\usepackage{booktabs}``."""
    table = table.for_people()
    rows = [[LINK.sub(r"\1", cell) for cell in row] for row in table.rows]
    columns = "".join(_latex_column([row[i] for row in rows]) for i in range(len(table.header)))
    lines = [" & ".join(map(escape_latex, row)) + r" \\" for row in (table.header, *rows)]
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
    """Return LaTeX's alignment of a column: numbers right, words left, and long text in a fixed width."""
    if cells and all(map(_is_number, cells)):
        return "r"
    return f"p{{{LATEX_WIDTH}}}" if any("\n" in cell or len(cell) > 40 for cell in cells) else "l"


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"-|[\d.,]+( k)?", text))


FORMATS: dict[str, Callable[[Table], str]] = {"md": to_markdown, "csv": to_csv, "tex": to_latex}


def write(table: Table, stem: Path) -> None:
    """Write ``stem.md``, ``stem.csv`` and ``stem.tex``. The folder is created if needed."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    for suffix, render in FORMATS.items():
        stem.with_name(f"{stem.name}.{suffix}").write_text(render(table))
