"""The tables of speed say what the rounds say, and no more."""

import json

import pytest

from pitfalls.experiment.config import ROOT
from pitfalls.report import speed


def line(*rounds, peak_mb=100.0):
    return {"unit": "samples/s", "rounds": [list(values) for values in rounds], "peak_mb": peak_mb}


def record(**lines):
    rates = {
        "machine/bf16": line([400.0], [200.0], [400.0]),
        "train/gpt_tiny": line([2000.0, 2100.0, 2200.0], [1000.0], [1500.0]),
        "train/gpt_mini": line([80.0], [40.0], [60.0]),
        "decode/gpt_mini": line([300.0], [150.0]),
        "data/8192_at_once": line([2e6], [1e6]),
    }
    parts = {"attention": [0.02, 0.04], "Python": [0.04, 0.0]}
    return {
        "batch_size": 256,
        "device": "cpu",
        "n_threads": 2,
        "precision": "bf16",
        "load": 0.1,
        "hardware": {"cpu": "a cpu", "n_cpus": 2},
        "commit": "c0ffee0123",
        "flop_per_sample": {name: {"nominal": 3e9, "counted": 1.5e9} for name in ("gpt_tiny", "gpt_mini")},
        "lines": rates | {name.replace("__", "/"): values for name, values in lines.items()},
        "profiles": {
            "gpt_tiny": [{"step_s": 0.1, "parts": parts, "casts_s": 0.01}, {"step_s": 0.2, "parts": parts, "casts_s": 0.04}],
            "gpt_mini": [{"step_s": 1.0, "parts": {"attention": [0.5, 0.0], "Python": [0.0, 0.5]}, "casts_s": 0.0}],
        },
    }


def rows(table):
    return {row[0]: row[1:] for row in table.rows}


def test_a_ratio_is_taken_within_a_round():
    """Guards a ratio of medians: here it would be 1500 / 750 = 2, with both sides half as fast in the second round."""
    made = speed.tables(record(train__plain_eager=line([700.0], [500.0], [750.0])))["ratios"]
    assert rows(made)["train/gpt_tiny over train/plain_eager"] == ("2", "2 to 3")


def test_a_goal_is_met_in_every_round_or_not_at_all():
    found = rows(speed.tables(record())["goals"])
    assert found["gpt_mini, training, of the bf16 peak"] == ("at least 0.65", "0.6", "0.45 to 0.6", "missed")
    assert found["gpt_tiny, training"][-1] == "in 1 of 3 rounds"
    assert found["graphs drawn"][-1] == "in 1 of 2 rounds"
    assert found["gpt_mini, greedy, of what its FLOP allow at the bf16 peak"][1:] == ("0.75", "0.75 to 0.75", "met")


def test_a_share_is_of_the_peak_of_the_precision_that_was_trained_in():
    """Guards a share of a bf16 peak that the machine emulates: 80 times as low as that of fp32, so that every goal was met."""
    emulated = record(machine__fp32=line([400.0], [200.0], [400.0])) | {"precision": "fp32"}
    emulated["lines"]["machine/bf16"] = line([5.0], [5.0], [5.0])
    made = speed.tables(emulated)
    assert rows(made["goals"])["gpt_mini, training, of the fp32 peak"][1:] == ("0.6", "0.45 to 0.6", "missed")
    assert rows(made["ratios"])["train/gpt_mini, nominal FLOP, of the fp32 peak"] == ("0.6", "0.45 to 0.6")


def test_at_most_is_not_at_least():
    slow = {"train__mamba_tiny": line([1000.0], [400.0], [1000.0]), "train__mamba2_tiny": line([500.0], [100.0], [100.0])}
    found = rows(speed.tables(record(**slow))["goals"])
    assert found["mamba_tiny, training, time over gpt_tiny"] == ("at most 4", "2.1", "1.5 to 2.5", "met")
    assert found["mamba2_tiny, training, time over gpt_tiny"][-1] == "missed"
    waits = {"startup__help": line([1.4], [1.5]), "startup__sweep_job": line([0.4], [0.6])}
    found = rows(speed.tables(record(**waits))["goals"])
    assert found["train.py --help"] == ("at most 1.5 s", "1.45", "1.4 to 1.5", "met")
    assert found["a sweep's job, beside its training"][-1] == "in 1 of 2 rounds"
    assert "import pitfalls" not in found


def test_plain_transformers_is_the_faster_of_its_two():
    plain = {"train__plain_eager": line([500.0], [500.0], [500.0]), "train__plain_sdpa": line([700.0], [100.0], [500.0])}
    assert rows(speed.tables(record(**plain))["goals"])["gpt_tiny, training, over plain transformers"][1:3] == ("3", "2 to 3")


def test_what_was_not_measured_has_no_row():
    """A quick run leaves the slow references out."""
    made = speed.tables(record())
    assert not any("plain" in name or "mamba" in name for table in (made["goals"], made["ratios"]) for name in rows(table))


def test_a_process_of_its_own_has_no_memory_beside_it():
    made = rows(speed.tables(record(train__plain_eager=line([1.0], peak_mb=None)))["lines"])
    assert made["train/plain_eager"] == ("1", "1 to 1", "samples/s", "-")
    assert made["train/gpt_tiny"] == ("2,000", "1,000 to 2,200", "samples/s", "100")


def test_parts_are_shares_of_their_own_step():
    made = speed.tables(record())["parts"]
    assert made.rows[0] == ("gpt_tiny", "attention", "20.0", "40.0", "45.0 %", "30.0 to 60.0 %")
    assert made.rows[2] == ("gpt_mini", "attention", "500.0", "0.0", "50.0 %", "50.0 to 50.0 %")
    assert "gpt_tiny: 150 ms in all" in made.note
    assert "15.0 % (10.0 to 20.0 %)" in made.note
    assert "gpt_mini: 1000 ms in all" in made.note


@pytest.mark.parametrize("path", sorted((ROOT / "results").rglob("measured.json")), ids=lambda path: path.parent.name)
def test_a_committed_measurement_comes_from_a_clean_tree(path):
    measured = json.loads(path.read_text())
    assert measured["dirty"] is False
    assert measured["commit"]
