"""The table of finished runs, from which ``collect.py`` writes its CSV and `pitfalls.records` makes its data frame."""

from dataclasses import replace
from pathlib import Path

import pytest

from pitfalls.runs.collection import read_finished, table
from pitfalls.runs.files import write_json
from tests.tiny_runs import a_record, plain

COUNTS = ("exact_match", "first_hop", "position_0", "position_1", "position_2")


def test_the_table_has_what_differs_and_leaves_out_what_cannot_be_read(tmp_path: Path, config):
    for seed in range(3):
        record = plain(a_record(config)) | {"run": f"run-s{seed}", "seed": seed}
        record["config"]["training"]["lr"] = 10.0**-seed
        (tmp_path / f"run-s{seed}").mkdir()
        write_json(tmp_path / f"run-s{seed}" / "record.json", record)
    (tmp_path / "run-s1" / "record.json").write_text("{")
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run-s0")
    broken: list[str] = []
    rows = table(read_finished(tmp_path, broken.append, broken.append))
    assert [row["run"] for row in rows] == ["run-s0", "run-s2"]
    assert [row["training.lr"] for row in rows] == [1.0, 0.01]
    assert "task.degree" not in rows[0]
    assert len(broken) == 1
    assert "run-s1/record.json" in broken[0]


@pytest.mark.parametrize("names", [("run-s0", "a-copy"), ("run-s0", "run-s0-copy"), ("moved", "moved-too")])
def test_a_copied_run_counts_once(tmp_path: Path, config, names: tuple[str, str]):
    """Guards against a run that weighs twice in a mean, because its folder was copied."""
    for seed, name in (*((0, name) for name in names), (1, "renamed")):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "record.json", plain(a_record(config)) | {"run": f"run-s{seed}", "seed": seed})
    copies: list[str] = []
    runs = read_finished(tmp_path, copies.append, copies.append)
    assert [run.run for run in runs] == (["run-s1", "run-s0"] if "run-s0" in names else ["run-s0", "run-s1"])
    counted, copy = (tmp_path / name for name in names)
    assert copies == [f"{copy}: it holds the run of {counted}"]


def test_a_copy_with_other_numbers_is_told(tmp_path: Path, config):
    """Guards against silence about a run that was trained twice, with different results."""
    record = plain(a_record(config)) | {"run": "run-s0"}
    for name in ("other", "run-s0"):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "record.json", record)
        record["evaluation"]["test"]["exact_match"] = {"k": 3, "n": 4}
    copies: list[str] = []
    (run,) = read_finished(tmp_path, copies.append, copies.append)
    assert run.evaluation["test"].exact_match.k == 3, "the folder with the run's own name counts"
    assert copies == [f"{tmp_path / 'other'}: it holds the run of {tmp_path / 'run-s0'}, with other numbers"]


def test_every_run_has_the_same_columns(config):
    """Guards against a row that is shorter than the header: paths of two lengths, and a run without a fixed training set."""
    long = replace(config, task=replace(config.task, path_length=config.task.path_length + 1))
    rows = table(a_record(one) for one in (config, long))
    assert list(rows[0]) == list(rows[1])
    last = config.task.path_length
    assert [row[f"forced_{last}"] is None for row in rows] == [True, False]
    assert [row["path_length"] for row in rows] == [last, last + 1]


def test_shares_are_those_of_their_counts(config):
    """Guards against a share that is not the one of the counts beside it, and a renamed column of the CSV."""
    (row,) = table([a_record(config)])
    for share, count in (("exact_match", "exact_match"), ("first_hop", "first_hop"), ("forced_1", "position_1")):
        k, n = row[f"test_{count}_k"], row[f"test_{count}_n"]
        assert row[share] == (k / n if n else None)


def test_no_run_gives_no_row():
    """Guards against an error in a folder where nothing has finished."""
    assert table([]) == []
