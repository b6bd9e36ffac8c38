"""A set of runs: several at a time, nothing twice, nothing lost, and failures are reported."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from pitfalls.experiment import run_sets
from pitfalls.experiment.cli import exit_on_error
from pitfalls.experiment.run_set_tables import STATES, comparison
from pitfalls.results.kept import Result
from pitfalls.results.plans import Cell, Plan, read_plan
from pitfalls.runs import run_folder, sweeps
from pitfalls.runs.lock import RunLock
from pitfalls.runs.records import Record
from pitfalls.runs.sweeps import run_dirs
from pitfalls.schemas import Config, ConfigError
from tests.tiny_runs import LINES, a_record, plain

ROOT = Path(__file__).resolve().parents[2]
CELL = Cell("teacherless", "laptop/teacherless", (), "teacherless", {"exact_match": (0.0, 1.0)}, (0, 1))
PLAN = Plan("p", "title", (CELL,))
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def kept(config: Config, **changes: object) -> str:
    """The text of a kept record."""
    return json.dumps({"record": plain(a_record(config)) | changes, "curve": []})


def checkout_state() -> str:
    """Return the state of the committed results in git."""
    return subprocess.run(
        ["git", "status", "--porcelain", "results"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


def script(*arguments: str, **kwargs) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / "reproduce.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT, timeout=300, **kwargs)


@pytest.fixture
def reproduce(monkeypatch, capsys, impatient):
    """Run scripts/reproduce.py in this process, which has imported all slow packages. Return status, output and errors."""
    spec = importlib.util.spec_from_file_location("reproduce", ROOT / "scripts" / "reproduce.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["reproduce.py", *arguments])
        status = 0
        try:
            exit_on_error(module.main, continues=True)
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return call


def test_runs_follow_the_presets(tmp_path):
    runs = run_sets.plan_runs(PLAN, tmp_path / "runs", tmp_path / "results")
    assert [run.config.seed for run in runs] == [0, 1]
    assert {run.config.objective.name for run in runs} == {"teacherless"}
    assert len({run.run_dir for run in runs}) == 2
    assert not (tmp_path / "runs").exists()


def test_a_grid_is_every_combination():
    """Guards against a combination that is left out, and the overrides of one cell in another."""
    plan = run_sets.load_plan("paper")
    assert len(plan.cells) == len({cell.name for cell in plan.cells}) == 3 * 3 * 5
    cell = next(cell for cell in plan.cells if cell.name == "mamba_teacherless_g2_20")
    assert cell.overrides == ("objective=teacherless", "task=g2_20", "model=mamba", "task.n_values=100")
    assert (cell.experiment, cell.label, cell.seeds, cell.parameters) == ("paper/scratch", "teacherless", (0,), None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("s: {title: t, seeds: [0], cell: {}}", "unknown field `cell`"),
        ("s: {title: t, seeds: [0], cells: {a: {label: l, expects: {}}}}", "unknown field `expects`"),
        ("s: {title: t, seeds: [0], grid: [{each: {}, label: l, expect: {}}]}", "unknown field `each`"),
    ],
)
def test_misspelt_keys_of_a_set_are_refused(tmp_path, text, words):
    path = tmp_path / "reproduce.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        read_plan(path, "s")


def test_cost_is_six_flop_per_parameter_and_token(tmp_path):
    run = run_sets.plan_runs(PLAN, tmp_path, tmp_path)[0]
    (cost,) = run_sets.run_costs([run])
    tokens = (3 * 2 * 2 + 3) + 3 - 1
    assert cost.flop == 6 * cost.n_parameters * tokens * run.n_samples
    assert 100_000 < cost.n_parameters < 300_000
    assert run_sets.run_costs([replace(run, cell=replace(CELL, parameters=7))])[0].n_parameters == 7


@pytest.mark.slow
def test_the_papers_grid_is_listed_with_its_cost():
    """The list has every run, hours for the stated throughput, and the commands. Nothing is trained."""
    done = script("paper", "--dry-run")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert sum(" s0 " in line for line in lines) == 45
    assert "sustains 100 TFLOP/s" in done.stdout
    assert "sbatch --array=0-44" in done.stdout
    with pytest.raises(ConfigError, match=r"--only 45: paper has runs 0 to 44; --dry-run lists them"):
        run_sets.plan_runs(run_sets.load_plan("paper"), Path("runs"), Path("results"), only=45)


def test_seconds_are_estimated_from_any_seed_of_the_cell(tmp_path, config):
    """Guards against an order by samples for some runs and by seconds for others: the longest would come last."""
    first, second = run_sets.plan_runs(PLAN, tmp_path / "runs", tmp_path)
    assert first.estimated_s() is second.estimated_s() is None
    first.committed.parent.mkdir()
    first.committed.write_text(kept(config, wall_s=7.5))
    first.committed.with_name("teacherless_long-s0.json").write_text(kept(config, wall_s=99))
    assert first.estimated_s() == second.estimated_s() == 7.5
    second.committed.write_text(kept(config, wall_s=8))
    assert (first.estimated_s(), second.estimated_s()) == (7.5, 8.0)


def test_torn_lines_wait_for_their_end(tmp_path):
    """Guards against half a JSON object: a line that is read while it is being written."""
    run = run_sets.plan_runs(PLAN, tmp_path, tmp_path)[0]
    run.run_dir.mkdir()
    first, second = LINES.splitlines(keepends=True)
    (run.run_dir / run_folder.METRICS).write_text(first + second[:9])
    assert [row.step for row in run.new_rows()] == [1]
    (run.run_dir / run_folder.METRICS).write_text(LINES)
    assert [row.step for row in run.new_rows()] == [2]
    assert run.new_rows() == []


@pytest.mark.slow
def test_failed_run_does_not_stop_the_others_and_is_told(tmp_path, config):
    runs = run_sets.plan_runs(PLAN, tmp_path / "runs", tmp_path / "results", smoke=True)
    runs[0].overrides = [*runs[0].overrides, "training.lr=-1"]
    told = {}

    class Listener:
        def row(self, run, row):
            pass

        def done(self, run, message):
            told[run.config.seed] = message

    failed = run_sets.train(runs, 2, Listener())
    assert len(failed) == 1
    assert "training.lr=-1.0: it must be > 0" in failed[0]
    assert told[1].startswith("it does not follow edges yet"), "the sentence on a run of twelve steps"
    assert [run.finished for run in runs] == [False, True]
    stale = tmp_path / "mine" / "records" / "teacherless-s0.json"
    stale.parent.mkdir(parents=True)
    stale.write_text(kept(config, run="of-another-machine"))
    results = run_sets.collect(runs, tmp_path / "mine")
    assert [result.record.run for result in results] == [runs[1].run_dir.name], "a record of an earlier set-up was mixed in"


def test_dry_run_lists_runs_and_trains_nothing(tmp_path, reproduce):
    status, printed, errors = reproduce("laptop", "--dry-run", "--runs-dir", str(tmp_path / "runs"))
    assert status == 0, errors
    assert "9 of 9 runs to train" in printed
    assert "teacherless s0" in printed
    assert not (tmp_path / "runs").exists()


def test_dry_run_tells_a_running_run_from_a_stopped_one(tmp_path, reproduce):
    """Guards against "stopped, continues" of a run that another process trains, and of one that failed or never began."""
    runs = run_sets.plan_runs(run_sets.load_plan("laptop"), tmp_path, tmp_path)
    for run in runs[:4]:
        run.run_dir.mkdir()
    (runs[1].run_dir / run_folder.METRICS).write_text(LINES)
    (runs[2].run_dir / run_folder.FAILURE).write_text(json.dumps({"error": "e", "overrides": [], "traceback": ""}))
    (runs[3].run_dir / run_sets.TRAIN_LOG).write_text("")
    with RunLock(runs[0].run_dir, 9):
        status, printed, errors = reproduce("laptop", "--dry-run", "--runs-dir", str(tmp_path))
    assert status == 0, errors
    lines = [next(line for line in printed.splitlines() if f" {run.title} " in line) for run in runs]
    shown = [line.rstrip(" │").split("│")[-1].strip() for line in lines]
    assert shown == ["running", "stopped, continues", "failed, is tried again", *["to train"] * 6]
    assert "8 of 9 runs to train" in printed
    assert "; 1 trained by another process now" in printed
    assert set(STATES) == set(sweeps.STATES)


def test_dry_run_says_how_many_runs_it_knows_no_time_of(tmp_path, config, reproduce):
    """Guards against a total that is "unknown" because of one new run among a hundred."""
    known = tmp_path / "laptop" / "records"
    known.mkdir(parents=True)
    (known / "teacherless-s0.json").write_text(kept(config, wall_s=100.0))
    folders = ("--results-dir", str(tmp_path), "--runs-dir", str(tmp_path / "runs"))
    assert "at least 50 s, 8 of unknown length" in reproduce("laptop", "--dry-run", "--workers", "2", *folders)[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope"], "nope: no such set of runs"),
        (["laptop", "--workers", "0"], "--workers: '0' is not an integer >= 1"),
        (["laptop", "--smoke", "--keep"], "are not kept"),
    ],
)
def test_mistakes_are_one_line(arguments, words, reproduce):
    status, _, errors = reproduce(*arguments)
    assert status == 2
    assert words in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize("content", ["{}", "pipe"])
def test_a_committed_record_that_is_none_is_one_line(tmp_path, content, reproduce):
    """Guards against unsafe reading: a pipe in place of a record stopped ``--dry-run`` for ever, and ``{}`` gave a traceback."""
    path = tmp_path / "laptop" / "records" / "teacherless-s0.json"
    path.parent.mkdir(parents=True)
    if content == "pipe":
        os.mkfifo(path)
    else:
        path.write_text(content)
    status, _, errors = reproduce("laptop", "--dry-run", "--results-dir", str(tmp_path), "--runs-dir", str(tmp_path / "runs"))
    assert status == 1
    assert f"error: {path}: " in errors
    assert len(errors.splitlines()) == 1


def result(config: Config, seed: int, k: int, run: str = "a-run") -> Result:
    """A run that is right on k of 4 test graphs, and expected to be right on at least 3."""
    record = plain(a_record(config)) | {"seed": seed, "run": run}
    record["evaluation"]["test"]["exact_match"] = {"k": k, "n": 4}
    cell = replace(CELL, name="reversed", expect={"exact_match": (0.75, 1.0)})
    return Result(msgspec.convert(record, Record), (), cell)


def test_runs_are_compared_with_the_committed_ones(config):
    """Guards against a silent difference between a run and the committed one."""
    here = [result(config, 0, 4), result(config, 1, 2, "another-config"), result(config, 2, 3), result(config, 9, 4)]
    committed = {f"reversed s{seed}": result(config, seed, 4) for seed in range(3)}
    assert comparison(here, committed, Path("results/laptop")) == [
        "Compared with results/laptop: 3 of 4 runs have a committed record, 2 of the same config.",
        "The same exact match to the last digit: 1 of 3.",
        "The largest difference: reversed s1, 0.500 here, 1.000 committed.",
        "Another verdict: reversed s1 (exact_match 0.5000, expected 0.75 to 1).",
        "Conclusion: 2 of 3 runs have the verdict of the committed run.",
    ]
    assert comparison(here[:1], committed, Path("x"))[-1] == "Conclusion: every run has the verdict of the committed run."
    assert comparison(here[3:], committed, Path("x")) == ["Nothing to compare with: x has no record of these runs."]


@pytest.mark.slow
def test_interrupted_set_continues_and_ends_with_table_and_figure(tmp_path):
    """After Ctrl-C during the main job, every run saves once, and the same command continues all of them."""
    arguments = ["laptop", "--smoke", "--runs-dir", str(tmp_path / "runs")]
    mine = tmp_path / "runs" / "results" / "smoke_laptop"
    command = [sys.executable, str(ROOT / "scripts" / "reproduce.py"), *arguments]
    state = checkout_state()
    process = subprocess.Popen(
        command,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs inherit that it is ignored
    )
    while not any(run_folder.read_metrics(path.parent) for path in tmp_path.glob("runs/*/metrics.jsonl")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "the same command continues" in printed
    done = script(*arguments)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in mine.iterdir() if "figures.json" not in path.name} == {
        "records",
        "table.md",
        "table.csv",
        "table.tex",
        *(f"{name}.{kind}" for name in ("figure", "positions", "entropy") for kind in ("png", "svg")),
    }
    assert len(list((mine / "records").glob("*.json"))) == len(run_sets.load_plan("laptop").cells)
    assert "Conclusion: " in done.stdout
    assert run_dirs(tmp_path / "runs"), "status finds the runs"
    assert all(run_folder.is_finished(path) for path in run_dirs(tmp_path / "runs")), "and takes no results for a run"
    assert checkout_state() == state, "the committed results changed"
    before = {path: path.read_text() for path in (mine / "records").glob("*.json")}
    again = script(*arguments)
    assert again.returncode == 0
    assert {path: path.read_text() for path in before} == before
    assert all(json.loads(text)["record"]["steps"] == 12 for text in before.values())
