"""A run that has not finished is used, but never without a word: the warning names the step of its weights."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pitfalls.experiment.build import load_run
from pitfalls.experiment.config import resolve
from pitfalls.experiment.hydra_app import compose
from pitfalls.experiment.run import train_run
from pitfalls.runs.files import write_json
from pitfalls.runs.lock import RunLock
from pitfalls.runs.records import Failure
from tests.tiny_runs import TINY

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of 12 steps, with checkpoints of steps 8 and 12."""
    runs_dir = tmp_path_factory.mktemp("runs")
    return runs_dir / train_run(resolve(compose([*TINY, f"runs_dir={runs_dir}"])), make_display=lambda config: []).run


UNFINISHED = {
    "stopped": (lambda run: (run / "record.json").unlink(), "has not finished; these are the weights of step 12 of 12"),
    "failed": (
        lambda run: [write_json(run / "failure.json", Failure("Boom: it broke", [], "")), (run / "record.json").unlink()],
        "has failed (Boom: it broke); these are the weights of step 12 of 12",
    ),
    "before its last step": (lambda run: move_back(run, 8), "has not finished; these are the weights of step 8 of 12"),
    "without its last weights": (
        lambda run: move_back(run, 8, keep_record=True),
        "has finished, but without its last checkpoint; these are the weights of step 8 of 12",
    ),
    "finished": (lambda run: None, ""),
}


def move_back(run_dir: Path, step: int, keep_record: bool = False) -> None:
    """Leave only the checkpoint of an earlier step."""
    for path in (run_dir / "checkpoint").iterdir():
        if path.name != f"step_{step:08d}":
            shutil.rmtree(path)
    if not keep_record:
        (run_dir / "record.json").unlink()


@pytest.mark.parametrize(("change", "said"), UNFINISHED.values(), ids=UNFINISHED.keys())
@pytest.mark.parametrize("name", ["evaluate", "inspect_run", "probe", "decode", "check_model"])
def test_an_unfinished_run_is_said(run_dir, tmp_path, monkeypatch, run_script, caplog, name, change, said):
    """Guards against the score of half a training that looks like that of a run."""
    copied = Path(shutil.copytree(run_dir, tmp_path / run_dir.name))
    change(copied)
    if name == "check_model":
        monkeypatch.setattr("pitfalls.language.doctor.examine", lambda *given: [])
    options = [] if name == "check_model" else ["--graphs", 5]
    done = run_script(name, copied, *options, "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert [message for message in caplog.messages if str(copied) in message] == ([f"{copied} {said}"] if said else [])


def test_a_run_that_is_trained_now_is_said(run_dir, tmp_path, caplog):
    copied = Path(shutil.copytree(run_dir, tmp_path / run_dir.name))
    (copied / "record.json").unlink()
    with RunLock(copied, 12):
        load_run(copied)
    assert f"{copied} is still being trained; these are the weights of step 12 of 12" in caplog.messages


@pytest.mark.slow
def test_what_is_said_of_an_unfinished_run_is_one_line_beside_the_json(run_dir, tmp_path):
    """Guards against a warning that nobody sees because no log is set up, or that stands in the JSON."""
    copied = Path(shutil.copytree(run_dir, tmp_path / run_dir.name))
    (copied / "record.json").unlink()
    command = [sys.executable, SCRIPTS / "evaluate.py", copied, "--graphs", "5", "--json", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == f"{copied} has not finished; these are the weights of step 12 of 12\n"
    assert json.loads(done.stdout)["run"] == run_dir.name
