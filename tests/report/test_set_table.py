"""The table of a set: what it shows is what the records hold, a row per cell and a CSV row per run."""

import csv
import io

import msgspec
from msgspec import UNSET

from pitfalls.report.set_table import COLUMNS, set_table, to_csv
from pitfalls.results.formats import to_markdown
from tests.kept_runs import a_result

G = (2, 3, 20)
HOP = {"exact": None, "first_hop": 510, "others": None, "graph": G, "label": "hop"}


def csv_rows(*results):
    return list(csv.DictReader(io.StringIO(to_csv(results))))


def test_csv_has_one_row_per_cell_and_seed_with_the_promised_columns():
    rows = csv_rows(a_result(480, 0, first_hop=500, graph=G, samples=12345), a_result(520, 1, train=990, train_graphs=64))
    assert [row["exact_match"] for row in rows] == ["0.48", "0.52"]
    assert [row["train_exact_match"] for row in rows] == ["", "0.99"]
    assert [row["regime"] for row in rows] == ["online", "fixed 64"]
    assert [row["samples_seen"] for row in rows] == ["12345", "10000"]
    assert rows[0]["position_accuracy"] == "1.0000 0.5000 1.0000" == rows[0]["free_position_accuracy"]
    assert tuple(rows[0]) == COLUMNS
    assert set(rows[0]) >= {
        "objective",
        "model",
        "graph",
        "n_values",
        "regime",
        "seed",
        "samples_seen",
        "exact_match",
        "first_hop",
        "position_accuracy",
    }
    assert (rows[0]["exact_match_low"], rows[0]["exact_match_high"]) == ("0.4492", "0.511")


def test_unanswered_positions_are_empty_not_zero():
    """A first-hop run answers one position. Its exact match is not 0 but no number at all."""
    (row,) = csv_rows(a_result(**HOP))
    assert row["exact_match"] == "" == row["wrong_arm"] == row["exact_match_low"]
    assert row["position_accuracy"] == "- 0.5100 -"
    (row,) = set_table([a_result(**HOP)], "t").rows
    assert row[3:5] == ("first hop 0.510", "-")


def test_a_count_that_a_record_lacks_is_empty():
    run = a_result(500)
    old = msgspec.structs.replace(run.record.test, wrong_arm_then_goal=UNSET)
    run = msgspec.structs.replace(run, record=msgspec.structs.replace(run.record, evaluation={"test": old}))
    assert csv_rows(run)[0]["wrong_arm_then_goal"] == ""


def test_a_missed_expectation_shows_in_both_tables():
    """Guards against a table that hides a failed seed, and so looks like a success."""
    bounds = {"exact_match": (0.46, 0.54)}
    results = [a_result(500, 0, expect=bounds), a_result(700, 1, expect=bounds)]
    assert "| 1 of 2 |" in to_markdown(set_table(results, "t"))
    assert [row["as_expected"] for row in csv_rows(*results)] == ["yes", "no"]
    assert "| 0 of 1 |" in to_markdown(set_table(results[1:], "t"))


def test_no_expectation_is_no_success():
    assert set_table([a_result(500)], "t").rows[0][5] == "no expectation"
    assert csv_rows(a_result(500))[0]["as_expected"] == ""


def test_a_single_run_has_an_interval_and_seeds_stand_side_by_side():
    one, several = (
        a_result(500, cell="a", label="a"),
        [a_result(k, seed, cell="b", label="b") for seed, k in enumerate((0, 1000))],
    )
    rows = set_table([one, *several], "t").rows
    assert rows[0][:5] == ("a", "G(2,5), 50", "10 k", "0.500 [0.469, 0.531]", "1.000")
    assert rows[1][3] == "0.000 / 1.000"


def test_fixed_training_graphs_stand_beside_the_label():
    assert set_table([a_result(train_graphs=3000)], "t").rows[0][0] == "next token (3000)"


def test_the_note_names_the_number_of_test_graphs():
    assert "on 1,000 test graphs" in set_table([a_result()], "t").note
