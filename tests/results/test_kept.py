"""Kept runs: a file holds one whole run, and all its numbers follow from its counts."""

import json
import os
import stat
from pathlib import Path

import msgspec
import pytest

from pitfalls.results.kept import keep, read_kept, read_result, read_results, record_file, unique
from pitfalls.results.plans import Cell, Plan, read_plans
from pitfalls.runs.counts import FIRST_HOP, Count
from pitfalls.runs.files import FileError, read_json, write_json
from pitfalls.runs.probe_records import Probes
from pitfalls.runs.records import EvaluationRow, TrainRow
from tests.kept_runs import a_kept, a_result, entropy

ROOT = Path(__file__).resolve().parents[2]
RECORDS = sorted((ROOT / "results").glob("*/records/*.json"))
CELL = Cell("x", "graphs", (), "x", {}, (0,))
PLAIN = json.loads(msgspec.json.encode(a_kept()))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "truncated"),
        ("[]", r"Expected `object`, got `array`"),
        ('{"record": {"run": "r"}, "curve": []}', "missing required field"),
        (json.dumps(PLAIN | {"typo": 1}), "unknown field `typo`"),
        (json.dumps(PLAIN | {"record": PLAIN["record"] | {"typo": 1}}), "unknown field `typo`"),
        (json.dumps(PLAIN | {"record": PLAIN["record"] | {"seed": "0"}}), r"Expected `int`, got `str`"),
    ],
)
def test_a_file_that_is_no_record_is_named(tmp_path, text, words):
    (tmp_path / "x-s0.json").write_text(text)
    with pytest.raises(FileError, match=f"x-s0.json: .*{words}.*; not a kept record: delete it and run its set again"):
        read_result(CELL, tmp_path / "x-s0.json")


def test_a_pipe_is_no_record(tmp_path):
    """Guards against a listing of kept runs that waits for a pipe's writer for ever."""
    os.mkfifo(tmp_path / "x-s0.json")
    assert stat.S_ISFIFO((tmp_path / "x-s0.json").lstat().st_mode)
    with pytest.raises(FileError, match="a pipe"):
        read_kept(tmp_path / "x-s0.json")


def test_a_run_of_an_older_version_replaces_nothing(tmp_path):
    """Guards against a good record that is overwritten by one that no table can read."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "record.json").write_text('{"run": "run", "config": {}}')
    (tmp_path / "kept.json").write_text("as it was")
    with pytest.raises(FileError, match="older version: delete the file"):
        keep(tmp_path / "run", tmp_path / "kept.json")
    assert (tmp_path / "kept.json").read_text() == "as it was"


def test_a_run_is_kept_with_its_curve_and_without_its_folder(tmp_path):
    """Guards against the folders of somebody's machine in a committed file, and training rows among the evaluations."""
    kept = a_kept(500, 3, runs_dir="home/someone/runs")
    write_json(tmp_path / "record.json", kept.record)
    point = kept.curve[0]
    rows = [TrainRow(step=1, samples=8, loss=1.5, wall_s=0.5, samples_per_s=9.5)]
    rows += [EvaluationRow(step=2, samples=point.samples, split="test", evaluation=point.evaluation)]
    (tmp_path / "metrics.jsonl").write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    target = record_file(tmp_path / "set", CELL, 3)
    keep(tmp_path, target)
    assert target == tmp_path / "set" / "records" / "x-s3.json"
    assert read_kept(target) == a_kept(500, 3, runs_dir="runs")


@pytest.mark.parametrize("path", RECORDS[::10], ids=lambda path: f"{path.parent.parent.name}/{path.stem}")
def test_a_committed_record_is_what_its_type_writes(path):
    """Guards against a type that drops or changes a field of the records that are there."""
    written = json.dumps(msgspec.to_builtins(read_kept(path)), allow_nan=False)
    committed = json.loads(path.read_bytes())
    committed["record"]["probes"].setdefault("other_decodings", None)  # the first runs had no such probe
    assert json.loads(written) == committed


def test_no_committed_record_is_without_a_cell():
    """Guards against a file that no table reads, because its cell was renamed."""
    plans = read_plans(ROOT / "conf" / "reproduce.yaml")
    expected = {record_file(ROOT / "results" / plan.name, c, s) for plan in plans.values() for c in plan.cells for s in c.seeds}
    assert set(RECORDS) - expected == set()


def test_what_is_kept_is_read_in_the_order_of_the_plan(tmp_path):
    plan = Plan("p", "t", (Cell("b", "b", (), "b", {}, (1, 0)), Cell("a", "a", (), "a", {}, (0,))))
    assert read_results(tmp_path, plan) == []
    for cell, seed in ((plan.cells[0], 0), (plan.cells[0], 1), (plan.cells[1], 0)):
        path = record_file(tmp_path, cell, seed)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(msgspec.json.encode(a_kept(seed=seed)))
    assert [(run.cell.name, run.seed) for run in read_results(tmp_path, plan)] == [("b", 1), ("b", 0), ("a", 0)]


def test_a_run_of_two_sets_counts_once():
    results = [a_result(500, 1), a_result(500, 0), a_result(500, 1, label="elsewhere")]
    assert [run.seed for run in unique(results)] == [0, 1]


@pytest.mark.parametrize("lowest", [0, 2, 3, 4])
def test_every_position_but_the_first_hop_is_one_of_the_others(lowest):
    """Guards against a lookup that is not counted, such as the start or the goal, and a first hop that is."""
    run = a_kept()
    counts = [Count(300 if place == lowest else 100 if place == FIRST_HOP else 900, 1000) for place in range(5)]
    test = msgspec.structs.replace(run.record.test, forced_position_accuracy=counts)
    record = msgspec.structs.replace(run.record, evaluation={"test": test})
    assert msgspec.structs.replace(run, record=record).other_positions == 0.3


@pytest.mark.parametrize(
    ("expect", "missed"),
    [
        ({"exact_match": (0.46, 0.54)}, []),
        ({"exact_match": (0.5, 0.5)}, []),
        ({"exact_match": (0.99, 1.0)}, ["exact_match 0.5000, expected 0.99 to 1"]),
        ({"other_positions": (0.98, 1.0)}, []),
        ({"other_positions": (0.0, 0.5)}, ["other_positions 1.0000, expected 0 to 0.5"]),
        ({"first_hop": (0.51, 0.51)}, []),
        ({"broken_walk": (0, 0.05), "wrong_arm": (0.45, 0.45)}, []),
        ({"train_exact_match": (0, 1)}, ["train_exact_match missing, expected 0 to 1"]),
    ],
)
def test_expectations(expect, missed):
    assert a_result(500, first_hop=510, broken=50, expect=expect).misses() == missed


def test_an_expectation_of_training_graphs():
    assert a_result(500, train=990, expect={"train_exact_match": (0.99, 1)}).misses() == []


def test_a_method_that_does_not_answer_misses_what_is_expected_of_its_answers():
    """Guards against 0 of 0 that counts as 0."""
    hop = a_result(
        None, first_hop=510, others=None, expect={"exact_match": (0, 1), "other_positions": (0, 1), "first_hop": (0, 1)}
    )
    assert hop.misses() == ["exact_match missing, expected 0 to 1", "other_positions missing, expected 0 to 1"]
    assert hop.exact_match == 0
    assert not hop.solved


@pytest.mark.parametrize(("curve", "samples"), [((0, 949), None), ((0, 950, 3), 1000), ((1000,), 0), ((), None)])
def test_solved_from_the_first_evaluation_on_that_says_so(curve, samples):
    assert a_kept(0, curve=curve).samples_to_solve == samples


def test_the_curve_of_training_graphs_is_not_that_of_test_graphs():
    run = a_kept(0, curve=(0, 1000))
    fitted = msgspec.structs.replace(run, curve=tuple(msgspec.structs.replace(point, split="train") for point in run.curve))
    assert fitted.samples_to_solve is None
    assert fitted.test_curve == []


def test_facts():
    run = a_kept(graph=(3, 4, 20), train_graphs=3000, n_steps=30, batch_size=8, samples=16)
    assert (run.graph_text, run.graph_label, run.star) == ("G(3,4), 20", "G(3,4), N=20", (3, 4, 20))
    assert (run.data_text, a_kept().data_text) == ("3,000 graphs", "new graphs")
    assert run.positions == ["start", "first hop", "v2", "goal"]
    assert a_kept(graph=(2, 2, 20)).positions == ["start", "first hop"]
    assert run.chance == pytest.approx(1 / 3)
    assert run.budget == 240, "not what was seen before it stopped"
    assert run.flops is None
    assert run.entropies is None
    assert a_kept(flops=2e9).flops == 2e9


def test_entropies_are_means():
    probes = Probes(uncertainty=entropy(0.01, 0.7, 0.03))
    assert a_kept(graph=(2, 3, 20), probes=probes).entropies == pytest.approx([0.01, 0.7, 0.03])


def test_a_method_is_its_objective_with_its_own_settings():
    run = a_result(objective="sequential_multi_token", overrides=("training.lr=1", "objective.sees=answer", "objective.weight=2"))
    assert run.own_settings == ("sees=answer", "weight=2")
    assert run.method == "sequential multi token (sees: answer, weight: 2)"
    assert a_result(objective="multi_token", overrides=("objective=multi_token",)).method == "multi token"


def test_step_times_are_no_kept_record():
    with pytest.raises(FileError, match="not a kept record"):
        read_kept(ROOT / "results" / "objectives" / "step_times.json")
    assert read_json(ROOT / "results" / "objectives" / "step_times.json", dict)
