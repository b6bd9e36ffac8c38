"""A table says the same in three formats."""

import csv
import io

import pytest

from pitfalls.results import formats
from pitfalls.results.formats import Table

TABLE = Table("A & B", ("graph", "exact_match", "k"), (("G(2,5) | x", "0.5", "12"), ("50 % & more", "-", "1,000")), "Note: 5 %.")


def test_markdown():
    assert formats.to_markdown(TABLE) == (
        "# A & B\n\n| graph | exact_match | k |\n| --- | --- | --- |\n| G(2,5) \\| x | 0.5 | 12 |\n"
        "| 50 % & more | - | 1,000 |\n\nNote: 5 %.\n"
    )


def test_csv_reads_back():
    assert list(csv.reader(io.StringIO(formats.to_csv(TABLE)))) == [list(TABLE.header), *map(list, TABLE.rows)]


def test_latex_uses_booktabs_and_escapes():
    """Guards against a & or % in a name, which ends a cell or a line."""
    text = formats.to_latex(TABLE)
    assert [text.count(rf"\{rule}rule") for rule in ("top", "mid", "bottom")] == [1, 1, 1]
    assert r"\begin{tabular}{lrr}" in text, "numbers to the right, words to the left"
    long = formats.to_latex(Table("t", ("a", "b"), (("x", "one line\nand another"),)))
    assert r"\begin{tabular}{lp{0.3\linewidth}}" in long, "several lines need a column of fixed width"
    assert r"50 \% \& more & - & 1,000 \\" in text
    assert r"exact\_match" in text
    assert r"\caption{A \& B. Note: 5 \%.}" in text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a\nb", r"a \newline b"),
        ("a_b", r"a\_b"),
        ("100%", r"100\%"),
        ("{x}", r"\{x\}"),
        ("\\", r"\textbackslash{}"),
        ("±1 → 2", r"$\pm$1 $\to$ 2"),
    ],
)
def test_escapes(text, escaped):
    assert formats.escape_latex(text) == escaped


def test_ragged_rows_are_refused():
    with pytest.raises(ValueError, match="a row of 1 cells under 3 headings"):
        Table("t", ("a", "b", "c"), (("x",),))


def test_three_files(tmp_path):
    formats.write(TABLE, tmp_path / "a.b")
    assert {path.name for path in tmp_path.iterdir()} == {"a.b.md", "a.b.csv", "a.b.tex"}


def test_people_see_the_columns_that_are_shown_and_the_csv_has_all():
    table = Table("t", ("a", "b", "c"), (("1", "2", "3"),), "n", shown=("c", "a"))
    assert table.for_people() == Table("t", ("c", "a"), (("3", "1"),), "n")
    assert "| c | a |" in formats.to_markdown(table)
    assert r"c & a \\" in formats.to_latex(table)
    assert formats.to_csv(table) == "a,b,c\n1,2,3\n"


def test_a_shown_column_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="table t: no column d; there are a, b"):
        Table("t", ("a", "b"), (), shown=("a", "d"))


@pytest.mark.parametrize("render", [formats.to_markdown, formats.to_latex])
def test_more_columns_than_fit_on_a_page_are_refused(render):
    names = tuple("abcdefghi")
    with pytest.raises(ValueError, match="table t: 9 columns; 8 fit on a page"):
        render(Table("t", names, ()))
    assert render(Table("t", names, (), shown=names[:8]))


@pytest.mark.parametrize("render", [formats.to_markdown, formats.to_latex])
def test_a_cell_that_nobody_would_read_is_cut(render):
    """Guards against a report that cannot be made, because somebody trained thirty seeds or wrote a long label."""
    fits, long = "a" * 120, "b" * 121
    text = render(Table("t", ("x", "y"), ((fits, long),)))
    assert fits in text
    assert "b" * 119 + "…" in text
    assert "b" * 120 not in text
    assert long in formats.to_csv(Table("t", ("x", "y"), ((fits, long),)))


def test_a_link_is_its_words_in_latex():
    """Guards against brackets and file names of Markdown in somebody's paper."""
    table = Table("t", ("a", "b"), (("[page](claims/x_y.md)", "[0.1, 0.2] (x)"),))
    assert r"page & [0.1, 0.2] (x) \\" in formats.to_latex(table)
    assert "[page](claims/x_y.md)" in formats.to_markdown(table)
