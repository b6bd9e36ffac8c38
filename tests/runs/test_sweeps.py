"""A sweep knows its runs, how far each of them is, and what is left to do."""

import csv
import importlib.util
import io
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pitfalls.experiment.config import resolve, run_dir_of
from pitfalls.experiment.hydra_app import compose
from pitfalls.runs import run_folder
from pitfalls.runs.files import FileError, write_json
from pitfalls.runs.lock import RunLock
from pitfalls.runs.sweeps import Job, State, Sweep, left_s, read_sweeps, run_dirs, state_of
from pitfalls.schemas import ConfigError
from tests.tiny_runs import TINY, a_record, start

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def steps(run_dir: Path, *places: tuple[int, float]) -> None:
    """Write metrics of steps, each at a second of training."""
    run_dir.mkdir(parents=True, exist_ok=True)
    made = [{"kind": "train", "step": s, "samples": 8 * s, "loss": 1.0, "wall_s": t, "samples_per_s": 9.0} for s, t in places]
    (run_dir / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in made))


def test_states_of_a_run(tmp_path: Path, config):
    run_dir = tmp_path / "run"
    assert state_of(run_dir) == State("waiting")
    steps(run_dir, (10, 1.0), (30, 5.0))
    assert state_of(run_dir) == State("stopped", 30, wall_s=5.0)
    with RunLock(run_dir, n_steps=100):
        state = state_of(run_dir)
        assert (state.name, state.step, state.n_steps, state.steps_per_s, state.left_s) == ("running", 30, 100, 5.0, 14.0)
        assert f"process {os.getpid()}" in state.note
    write_json(run_dir / "failure.json", {"error": "ValueError: it\nbroke", "overrides": ["seed=1"], "traceback": ""})
    assert state_of(run_dir) == State("failed", 30, wall_s=5.0, note="ValueError: it")
    write_json(run_dir / "record.json", a_record(config))
    assert state_of(run_dir) == State("finished", wall_s=1.25)


@pytest.mark.parametrize("text", ["{}", "{", '{"wall_s": 1.0}'])
def test_a_record_that_cannot_be_read_is_not_finished(tmp_path: Path, text: str):
    """Guards a run that ``status.py`` calls finished and ``collect.py`` leaves out."""
    (tmp_path / "record.json").write_text(text)
    assert state_of(tmp_path).name == "failed"
    assert "record.json cannot be read" in state_of(tmp_path).note
    assert "delete the file and start the run again" in state_of(tmp_path).note
    assert Sweep((Job((), tmp_path),)).unfinished(), "a sweep would end as if all were well"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"error": 3}', "null"])
def test_a_broken_failure_is_said_and_stops_no_display(tmp_path: Path, text: str):
    (tmp_path / "failure.json").write_text(text)
    assert state_of(tmp_path).name == "failed"
    assert "failure.json cannot be read" in state_of(tmp_path).note


def test_broken_lines_of_metrics_stop_no_display(tmp_path: Path):
    steps(tmp_path, (10, 1.0))
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'\xff\xfe\n{"step": -1, "wall_s": 1}\n[]\n{"step": 20')
    assert state_of(tmp_path).step == 10


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/etc/passwd"), Path.mkdir])
@pytest.mark.parametrize("name", ["metrics.jsonl", "failure.json", "running.lock", "record.json"])
def test_a_strangers_folder_stops_no_display(tmp_path: Path, name: str, make):
    """Guards against a pipe at which the display waits for ever, and a link that it follows."""
    make(tmp_path / name)
    state_of(tmp_path)


def test_a_sweep_is_named_by_its_runs_and_read_as_written(tmp_path: Path):
    a, b = (Job((f"seed={s}",), tmp_path / f"run-s{s}") for s in range(2))
    assert Sweep.of([a, b, a]).jobs == (a, b)
    assert Sweep.of([a, b]).name == Sweep.of([b, a]).name != Sweep.of([a]).name
    assert list(read_sweeps(tmp_path)) == []
    Sweep.of([a]).write()
    Sweep.of([a, b]).write()
    Sweep.of([a, b]).write()
    assert {sweep.jobs for sweep in read_sweeps(tmp_path)} == {(a,), (a, b)}


def test_a_sweep_over_folders_is_listed_in_each_with_its_own_runs(tmp_path: Path):
    """Guards against runs of another folder, which ``status.py`` would show as waiting for ever."""
    jobs = [Job((f"runs_dir={name}", f"seed={s}"), tmp_path / name / f"run-s{s}") for name in "ab" for s in range(2)]
    Sweep.of(jobs).write()
    for name, own in (("a", jobs[:2]), ("b", jobs[2:])):
        (listed,) = read_sweeps(tmp_path / name)
        assert listed.jobs == tuple(own)


@pytest.mark.parametrize("run", ["../elsewhere", "/etc", "", ".hidden", "a/b"])
def test_a_list_of_jobs_names_no_folder_elsewhere(tmp_path: Path, run: str):
    (tmp_path / "sweeps").mkdir()
    write_json(tmp_path / "sweeps" / "0123abcd.json", {"jobs": [{"overrides": [], "run": run}]})
    with pytest.raises(FileError, match="0123abcd.json"):
        list(read_sweeps(tmp_path))


def test_finished_and_running_runs_are_left_out(tmp_path: Path, config):
    jobs = [Job((f"seed={s}",), tmp_path / f"run-s{s}") for s in range(4)]
    sweep = Sweep.of(jobs)
    jobs[0].run_dir.mkdir()
    write_json(jobs[0].run_dir / "record.json", a_record(config))
    steps(jobs[1].run_dir, (1, 1.0))
    jobs[2].run_dir.mkdir()
    write_json(jobs[2].run_dir / "failure.json", {"error": "x", "overrides": [], "traceback": ""})
    with RunLock(jobs[1].run_dir, 10):
        assert sweep.to_train() == jobs[2:]
        assert sweep.summary() == "1 finished, 1 running, 1 failed, 1 waiting"
    assert sweep.to_train() == jobs[1:]
    assert sweep.unfinished()[0] == jobs[2], "what failed is named first"
    assert jobs[2].text() == "[seed=2] failed (x)"


def test_time_left():
    done, waiting = State("finished", wall_s=100.0), State("waiting")
    running = State("running", 50, 100, 1.0, 50.0)
    assert left_s([done]) == 0
    assert left_s([done, waiting, waiting]) == 200
    assert left_s([running]) == 50
    assert left_s([running, running, waiting, waiting]) == pytest.approx(150)
    assert left_s([waiting]) is None
    assert left_s([done, State("running", 0, 100)]) is None, "its speed is not known yet"


def test_a_check_finds_what_cannot_run_before_any_compute(tmp_path: Path):
    base = [*TINY, f"runs_dir={tmp_path}"]
    with pytest.raises(ConfigError, match="only 30 distinct graphs"):
        resolve(compose([*base, "task.degree=2", "task.path_length=2", "task.n_values=5"]))
    with pytest.raises(ConfigError, match=f"model.init_from={tmp_path}: not the folder of a finished run"):
        resolve(compose([*base, f"model.init_from={tmp_path}"]))
    assert not list(tmp_path.iterdir())


def test_a_job_for_another_machine_keeps_its_device(tmp_path: Path):
    """Guards against a sweep that a login node without a GPU refuses, or whose finished runs it does not find."""
    base = [*TINY, f"runs_dir={tmp_path}", "training.device=cuda", "training.precision=bf16"]
    there = run_dir_of(resolve(compose(base), trained_here=False))
    with pytest.raises(ConfigError, match="torch sees no CUDA device"):
        resolve(compose(base))
    config = compose(base)
    assert there.name == run_folder.run_name(asdict(replace(config)))


# ------------------------------------------------------------------ whole sweeps


def test_a_sweep_from_start_to_table(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    """Of two runs one diverges, which is reported at once. The other finishes, and the same command tries the first one again."""
    command = ["-m", *TINY, "training.n_steps=4", "training.lr=1e20,1e-3", f"runs_dir={tmp_path / 'runs'}"]
    for k, trained in ((0, 1), (1, 0)):
        child = start(command, tmp_path / f"log{k}")
        assert child.wait() == 1, child.text
        assert child.text.count("test exact_match") == trained
        assert child.text.count("FAILED [") == 1
        assert "1 of 2 runs are not finished: 1 finished, 1 failed; the first: [" in child.text.splitlines()[-1]
    (sweep,) = read_sweeps(tmp_path / "runs")
    assert sorted(state_of(job.run_dir).name for job in sweep.jobs) == ["failed", "finished"]
    status, collect = script("status"), script("collect")
    monkeypatch.setattr("sys.argv", ["status.py", str(tmp_path / "runs")])
    status.main()
    shown = capsys.readouterr().out
    assert "2 runs, 1 finished, 1 failed" in shown
    assert "loss=nan" in shown
    monkeypatch.setattr("sys.argv", ["collect.py", str(tmp_path / "runs")])
    with pytest.raises(SystemExit) as end:
        collect.main()
    assert end.value.code == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row["test_exact_match_n"] == "64"


def test_a_sweep_over_runs_dir_from_start_to_status(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    a, b = tmp_path / "a", tmp_path / "b"
    child = start(["-m", *TINY, "training.n_steps=2", f"runs_dir={a},{b}"], tmp_path / "log")
    assert child.wait() == 0, child.text
    for folder in (a, b):
        monkeypatch.setattr("sys.argv", ["status.py", str(folder)])
        script("status").main()
        assert "1 run, 1 finished" in capsys.readouterr().out


def test_folders_with_names_that_no_run_has_are_passed_over(tmp_path: Path):
    for name in ("run-1", ".hidden", "two words", "<script>"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "resolved_config.json").touch()
    assert [path.name for path in run_dirs(tmp_path)] == ["run-1"]


def test_results_beside_the_runs_are_no_runs(tmp_path: Path):
    """Guards against ``runs/results`` and ``runs/report`` in the table of ``status``, as runs that wait."""
    for name in ("results/laptop/records", "report", "sweeps", "submitit/3"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file.json").touch()
    assert run_dirs(tmp_path) == []
