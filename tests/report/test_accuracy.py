"""Accuracy per graph and model: a row per config, seed by seed."""

from pitfalls.report.accuracy import accuracy
from tests.kept_runs import a_kept


def test_a_row_per_config_with_each_seed():
    others = [a_kept(1000, objective="reversed"), a_kept(700, objective="first_hop"), a_kept(300, graph=(3, 5, 50))]
    table = accuracy([*others, a_kept(510, 1), a_kept(500, 0)])
    assert table.rows == (
        ("G(2,5), 50", "0.500", "gpt_tiny", "new graphs", "10 k, fp32", "next token", "0.500 / 0.510", "0 of 2"),
        ("G(2,5), 50", "0.500", "gpt_tiny", "new graphs", "10 k, fp32", "reversed", "1.000", "1 of 1"),
        ("G(3,5), 50", "0.333", "gpt_tiny", "new graphs", "10 k, fp32", "next token", "0.300", "0 of 1"),
    )
    assert "could not be read" in table.note


def test_configs_that_differ_in_training_stand_apart():
    """Guards against seeds of a long and a short run pooled as one config."""
    rows = accuracy([a_kept(500), a_kept(600, n_steps=200), a_kept(700, train_graphs=3000)]).rows
    assert [(row[3], row[4], row[6]) for row in rows] == [
        ("3,000 graphs", "10 k, fp32", "0.700"),
        ("new graphs", "10 k, fp32", "0.500"),
        ("new graphs", "20 k, fp32", "0.600"),
    ]


def test_rows_of_two_precisions_can_be_told_apart():
    """Guards against two rows with the same words, of which nobody knows how they differ."""
    rows = accuracy([a_kept(500), a_kept(500, precision="bf16")]).rows
    assert [row[4] for row in rows] == ["10 k, fp32", "10 k, bf16"]
