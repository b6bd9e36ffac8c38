"""Tables in README and docs are the rows of generated tables, and nothing else of a page changes."""

import pytest

from pitfalls.report.doc_blocks import refresh

TABLE = "# Title\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\nA note.\n"
PAGE = "Before.\n<!-- results/t.md -->\nold\n<!-- end -->\nBetween.\n<!-- results/t.md -->\n<!-- end -->\nAfter.\n"
ROWS = "<!-- results/t.md -->\n| a | b |\n| --- | --- |\n| 1 | 2 |\n<!-- end -->\n"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "docs" / "deep").mkdir(parents=True)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "t.md").write_text(TABLE)
    (tmp_path / "README.md").write_text("No table.\n")
    (tmp_path / "docs" / "deep" / "page.md").write_text(PAGE)
    return tmp_path


def test_blocks_hold_the_rows_of_their_tables(root):
    page = root / "docs" / "deep" / "page.md"
    assert refresh(root) == [page]
    assert page.read_text() == f"Before.\n{ROWS}Between.\n{ROWS}After.\n"
    assert refresh(root) == [], "what is right is not written again"


def test_a_table_that_does_not_exist_changes_nothing(root):
    page = root / "docs" / "deep" / "page.md"
    page.write_text(PAGE.replace("results/t.md", "results/other.md"))
    with pytest.raises(FileNotFoundError):
        refresh(root)
    assert "old" in page.read_text()
