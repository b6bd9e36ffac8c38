"""Published numbers stand beside ours, method by method."""

import shutil
from pathlib import Path

import pytest

from pitfalls.objectives import NAMES
from pitfalls.report.published import published, read_papers
from pitfalls.schemas import ConfigError
from tests.kept_runs import a_kept

FILE = Path(__file__).resolve().parents[2] / "conf" / "published.yaml"


WORDS = "source: s, short: s, setting: s, n_values: 1"
ROW = "{degree: 2, path_length: 3, numbers: {a: 1}}"


def test_published_numbers_stand_beside_ours():
    """Guards against a number beside another method of ours. A method with another name in the paper is found by the mapping."""
    graph = (3, 5, 30)
    runs = [a_kept(330, graph=graph), a_kept(340, 1, graph=graph), a_kept(990, graph=graph, objective="token_order")]
    table = published(read_papers(FILE), runs)
    rows = {(row[0], row[2]): row[3:] for row in table.rows}
    assert rows["G(3,5), 30", "next token"] == ("0.325", "0.330 / 0.340", "0 of 2", "30, 10 k, fp32", "gpt_tiny")
    assert rows["G(3,5), 30", "TOP"] == ("1.000", "0.990", "1 of 1", "30, 10 k, fp32", "gpt_tiny")
    assert rows["G(3,5), 30", "MTP-2"] == ("0.590", "not run", "-", "-", "-")
    assert rows["G(7,7), 100", "next token"] == ("0.126", "not run", "-", "-", "-")
    assert "could not be read" in table.note


def test_configs_of_ours_are_rows_of_their_own():
    """Guards against a graph with fewer node values, or a longer run, that looks like the same config."""
    runs = [a_kept(500, graph=(3, 5, 20)), a_kept(330, graph=(3, 5, 30)), a_kept(320, graph=(3, 5, 30), n_steps=200)]
    rows = [row for row in published(read_papers(FILE), runs).rows if (row[0], row[2]) == ("G(3,5), 30", "next token")]
    assert [(row[4], row[6]) for row in rows] == [
        ("0.500", "20, 10 k, fp32"),
        ("0.330", "30, 10 k, fp32"),
        ("0.320", "30, 20 k, fp32"),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[{source: s}]", "missing required field `short`"),
        ("{}", "Expected `array`, got `object`"),
        ("[", "while parsing"),
        ("[{source: s, short: s, setting: s, n_values: 1, ours: {}, rows: [], typo: 1}]", "unknown field `typo`"),
        ("[{source: s, short: s, setting: s, n_values: 1, ours: {}, rows: []}]", "rows: at least one"),
        (f"[{{{WORDS}, ours: {{b: next_token}}, rows: [{ROW}]}}]", "ours b: no row has a number of it; choose one of a"),
        (f"[{{{WORDS}, ours: {{}}, rows: [{ROW.replace('1}', '101}')}]}}]", r"<= 100.0 - at"),
        (f"[{{{WORDS}, ours: {{}}, rows: [{ROW.replace('2', '0')}]}}]", r">= 1 - at `\$\[0\].rows\[0\].degree"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, text, words):
    (tmp_path / "published.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"^published.yaml: .*{words}") as caught:
        read_papers(tmp_path / "published.yaml")
    assert "\n" not in str(caught.value)


def test_a_misspelt_objective_is_refused(tmp_path):
    """Guards against "not run" for ever beside a published number, because our objective is misspelt."""
    shutil.copytree(FILE.parent / "objective", tmp_path / "objective")
    (tmp_path / "published.yaml").write_text(f"[{{{WORDS}, ours: {{a: next_tokn}}, rows: [{ROW}]}}]")
    with pytest.raises(ConfigError, match=f"^published.yaml: s: ours a=next_tokn: choose one of {NAMES[0]}"):
        read_papers(tmp_path / "published.yaml")
