"""The tables of speed show the values of the rounds, and no more."""

import msgspec
import pytest

from pitfalls.experiment.config import ROOT
from pitfalls.report import roofline_table, scaling_tables, speed
from pitfalls.report.measurements import (
    FlopPerSample,
    Hardware,
    MeasuredLine,
    Roofline,
    Scaling,
    Speed,
    StepProfile,
    StepTimes,
)
from pitfalls.runs.files import read_json

RESULTS = ROOT / "results"
KINDS = {"benchmark/*/measured.json": Speed, "scaling/measured.json": Scaling, "roofline/estimated.json": Roofline}
FILES = [(path, of_type) for pattern, of_type in KINDS.items() for path in sorted(RESULTS.glob(pattern))]
TABLES = {Speed: speed.tables, Scaling: scaling_tables.tables, Roofline: roofline_table.tables}


def line(*rounds, peak_mb=100.0):
    return MeasuredLine("samples/s", [list(values) for values in rounds], peak_mb)


def record(precision="bf16", **lines):
    rates = {
        "machine/bf16": line([400.0], [200.0], [400.0]),
        "train/gpt_tiny": line([2000.0, 2100.0, 2200.0], [1000.0], [1500.0]),
        "train/gpt_mini": line([80.0], [40.0], [60.0]),
        "decode/gpt_mini": line([300.0], [150.0]),
        "data/batches": line([2.8e5], [2e5], [1.43e5]),
    }
    parts = {"attention": (0.02, 0.04), "Python": (0.04, 0.0)}
    return Speed(
        batch_size=256,
        device="cpu",
        n_threads=2,
        precision=precision,
        load=0.1,
        hardware=Hardware("a cpu", 2, "Linux"),
        commit="c0ffee0123",
        dirty=False,
        versions={},
        flop_per_sample={name: FlopPerSample(3e9, 1.5e9) for name in ("gpt_tiny", "gpt_mini")},
        lines=rates | {name.replace("__", "/"): values for name, values in lines.items()},
        profiles={
            "gpt_tiny": [StepProfile(0.1, parts, 0.01), StepProfile(0.2, parts, 0.04)],
            "gpt_mini": [StepProfile(1.0, {"attention": (0.5, 0.0), "Python": (0.0, 0.5)}, 0.0)],
        },
    )


def rows(table):
    return {row[0]: row[1:] for row in table.rows}


def test_a_ratio_is_taken_within_a_round():
    """Guards against a ratio of medians: here it would be 1500 / 750 = 2, with both sides half as fast in the second round."""
    made = speed.tables(record(train__plain_eager=line([700.0], [500.0], [750.0])))["ratios"]
    assert made.rows[0] == ("train gpt_tiny", "train plain transformers, eager attention", "2", "2 to 3")


def test_a_goal_is_met_in_every_round_or_not_at_all():
    found = rows(speed.tables(record())["goals"])
    assert found["train gpt_mini: share of the bf16 peak"] == ("at least 0.65", "0.6", "0.45 to 0.6", "missed")
    assert found["draw the batches of a run: time over train gpt_tiny"] == (
        "at most 0.01",
        "0.0075",
        "0.005 to 0.0105",
        "met in 2 of 3 rounds",
    )
    assert found["answer with gpt_mini: share of the bf16 peak"][1:] == ("0.75", "0.75 to 0.75", "met")


def test_a_share_is_of_the_peak_of_the_precision_that_was_trained_in():
    """Guards against shares of an emulated bf16 peak. It was 80 times lower than that of fp32, so every goal was met."""
    peaks = {"machine__fp32": line([400.0], [200.0], [400.0]), "machine__bf16": line([5.0], [5.0], [5.0])}
    made = speed.tables(record("fp32", **peaks))
    assert rows(made["goals"])["train gpt_mini: share of the fp32 peak"][1:] == ("0.6", "0.45 to 0.6", "missed")
    assert rows(made["ratios"])["train gpt_mini, nominal FLOP"] == ("fp32 peak", "0.6", "0.45 to 0.6")


def test_at_most_is_not_at_least():
    slow = {"train__mamba_tiny": line([1000.0], [400.0], [1000.0]), "train__mamba2_tiny": line([500.0], [100.0], [100.0])}
    found = rows(speed.tables(record(**slow))["goals"])
    assert found["train mamba_tiny: time over gpt_tiny"] == ("at most 4", "2.1", "1.5 to 2.5", "met")
    assert found["train mamba2_tiny: time over gpt_tiny"][-1] == "missed"
    waits = {"torch": ([2.0], [3.0]), "help": ([0.8], [1.5]), "job": ([5.0], [5.0]), "sweep_job": ([0.4], [0.6])}
    found = rows(speed.tables(record(**{f"startup__{name}": line(*values) for name, values in waits.items()}))["goals"])
    assert found["train.py --help: time over import torch"] == ("at most 0.5", "0.45", "0.4 to 0.5", "met")
    assert found["one more job of a sweep: time over a sweep of one job"][-1] == "met in 1 of 2 rounds"
    assert not any("import pitfalls" in name for name in found)


def test_every_goal_is_a_ratio_to_what_the_same_run_measured():
    """Guards against samples per second as a goal, which another machine meets or misses for no reason of ours."""
    lines = {name: line([1.0], [2.0]) for name in speed.LINES}
    every = speed.goals(msgspec.structs.replace(record(), lines=lines))
    thrice = speed.goals(msgspec.structs.replace(record(), lines={name: line([3.0], [6.0]) for name in lines}))
    assert len(every) == 10
    for one, other in zip(every, thrice, strict=True):
        assert one.value.values == pytest.approx(other.value.values)


def test_what_was_left_out_is_named():
    assert "skipped" not in speed.tables(record())
    left_out = msgspec.structs.replace(record(), skipped={"machine/bf16": "bf16 is emulated here"})
    assert speed.tables(left_out)["skipped"].rows == (("matrix product, bf16", "bf16 is emulated here"),)


def test_plain_transformers_is_the_faster_of_its_two():
    plain = {"train__plain_eager": line([500.0], [500.0], [500.0]), "train__plain_sdpa": line([700.0], [100.0], [500.0])}
    assert rows(speed.tables(record(**plain))["goals"])["train gpt_tiny: speed over plain transformers"][1:3] == ("3", "2 to 3")


def test_what_was_not_measured_has_no_row():
    """A quick run leaves the slow references out."""
    made = speed.tables(record())
    assert not any("plain" in name or "mamba" in name for table in (made["goals"], made["ratios"]) for name in rows(table))


def test_a_process_of_its_own_has_no_memory_beside_it():
    made = rows(speed.tables(record(train__plain_eager=line([1.0], peak_mb=None)))["lines"])
    assert made["train plain transformers, eager attention"] == ("1", "1 to 1", "samples/s", "-")
    assert made["train gpt_tiny"] == ("2,000", "1,000 to 2,200", "samples/s", "100")


def test_parts_are_shares_of_their_own_step():
    made = speed.tables(record())["parts"]
    assert made.rows[0] == ("gpt_tiny", "attention", "20.0", "40.0", "45.0 %", "30.0 to 60.0 %")
    assert made.rows[2] == ("gpt_mini", "attention", "500.0", "0.0", "50.0 %", "50.0 to 50.0 %")
    assert "gpt_tiny: 150 ms per step" in made.note
    assert "15.0 % (10.0 to 20.0 %)" in made.note
    assert "gpt_mini: 1000 ms per step" in made.note


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("measured.json")), ids=lambda path: path.parent.name)
def test_a_committed_measurement_comes_from_a_clean_tree(path):
    measured = read_json(path, Scaling if path.parent.name == "scaling" else Speed)
    assert measured.dirty is False
    assert measured.commit


@pytest.mark.parametrize(("path", "of_type"), FILES, ids=lambda value: value.parent.name if value in dict(FILES) else "")
def test_a_committed_file_is_what_its_type_writes(path, of_type):
    """Guards against a type that drops or changes a field of the files that are there."""
    written = msgspec.json.encode(read_json(path, of_type))
    assert msgspec.json.decode(written) == msgspec.json.decode(path.read_bytes())
    with pytest.raises(ValueError, match="unknown field `typo`"):
        msgspec.convert(msgspec.json.decode(path.read_bytes()) | {"typo": 1}, of_type)


def test_step_times_are_read_by_their_type():
    assert read_json(RESULTS / "objectives" / "step_times.json", StepTimes).relative["next_token G(2,5), 20"] == 1.0


@pytest.mark.parametrize(("path", "of_type"), FILES, ids=lambda value: value.parent.name if value in dict(FILES) else "")
def test_a_table_can_be_read(path, of_type):
    """Guards against wide tables, long cells, codes such as train/gpt_tiny instead of words, and sentences without an end."""
    for name, table in TABLES[of_type](read_json(path, of_type)).items():
        assert len(table.header) <= 6, name
        cells = [cell for row in table.rows for cell in row]
        assert max(map(len, cells)) <= 70, name
        codes = [cell for cell in cells if "/" in cell and "s/s" not in cell and "B/s" not in cell and "P/s" not in cell]
        assert not codes
        assert max(len(sentence.split()) for sentence in table.note.split(". ")) <= 30, name


def test_every_line_that_may_be_compared_has_words():
    assert {name for pair in speed.RATIOS for name in pair} <= speed.LINES.keys()
    assert len(set(speed.LINES.values())) == len(speed.LINES)
