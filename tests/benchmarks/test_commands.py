"""The benchmark refuses a wrong option before it measures, runs from any folder, and reads back what it writes."""

import os
import runpy
import subprocess
import sys

import msgspec
import pytest

from benchmarks import commands, gpu_roofline, machine, new_process
from benchmarks.timing import Line
from pitfalls.experiment.config import ROOT
from pitfalls.report.measurements import Environment, MeasuredLine, Roofline, StepTimes
from pitfalls.runs.files import read_json, write_json
from pitfalls.schemas import ConfigError

SCRIPT = ROOT / "scripts" / "benchmark.py"


def run_script(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


@pytest.mark.parametrize("kind", ["speed", "objectives", "scaling", "roofline"])
def test_a_file_in_no_folder_is_refused_before_anything_is_measured(tmp_path, monkeypatch, capsys, kind):
    """Guards against ten minutes of measuring that end in a FileNotFoundError and lose every value."""
    monkeypatch.setattr(commands, "measure", lambda *options: pytest.fail("it was measured"))
    with pytest.raises(SystemExit) as ended:
        run_script(monkeypatch, kind, "--output", tmp_path / "missing" / "measured.json")
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        f"error: --output {tmp_path}/missing/measured.json: there is no folder {tmp_path}/missing; make it first"
    ]


def test_a_folder_is_no_file_to_write(tmp_path):
    with pytest.raises(ConfigError, match="this is a folder; name a file in it"):
        commands.check_options("speed", False, tmp_path)
    commands.check_options("speed", False, tmp_path / "measured.json")


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(ConfigError, match="measured.json: the folder .* cannot be written to; choose another one"):
        commands.check_options("speed", False, tmp_path / "measured.json")


def test_options_that_would_be_ignored_are_refused():
    with pytest.raises(ConfigError, match="scaling has no quick version"):
        commands.check_options("scaling", True, None)


def test_the_benchmark_runs_from_any_folder(tmp_path, monkeypatch):
    """Guards against an import of benchmarks/ that only works in the top folder of the checkout."""
    wrong = [sys.executable, str(SCRIPT), "--threads", "0"]
    done = subprocess.run(wrong, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr == "error: argument --threads: '0' is not an integer in 1..1024\n"
    monkeypatch.chdir(tmp_path)
    assert new_process.run_python(["-c", "import benchmarks; print(benchmarks.__name__)"]) == "benchmarks\n"


def test_what_is_written_is_read_back_and_shown(tmp_path, monkeypatch, capsys):
    """Guards against a writer and a reader that differ, and against the loss of tables with ``--output``."""
    monkeypatch.setattr(gpu_roofline, "MODELS", {"gpt_tiny": ("model=gpt_nano", "training.batch_size=4")})
    small = gpu_roofline.on_paper(gpu_roofline.H100, ["gpt_tiny"], ["g2_5"])
    monkeypatch.setattr(commands, "measure", lambda *options: small)
    run_script(monkeypatch, "roofline", "--output", tmp_path / "estimated.json")
    assert read_json(tmp_path / "estimated.json", Roofline) == small
    assert "G(2,5)" in capsys.readouterr().out
    run_script(monkeypatch, "roofline", "--json")
    assert msgspec.json.decode(capsys.readouterr().out, type=Roofline) == small


def test_the_machine_is_described_as_the_reader_wants_it(tmp_path):
    """Guards against a field of the environment that the reader refuses after ten minutes of measuring."""
    times = StepTimes(relative={"next_token G(2,5), 20": 1.0, "trelawney G(2,5), 20": 1.25}, rounds=5, **machine.environment())
    write_json(tmp_path / "step_times.json", times)
    assert read_json(tmp_path / "step_times.json", StepTimes) == times
    assert isinstance(times, Environment)
    assert commands.tables(times)["step_times"].rows[1] == ("trelawney", "G(2,5), N=20", "1.25")


def test_memory_of_another_process_is_not_in_a_file():
    lines = [Line("a", "s", lambda: [1.0], 1, elsewhere=elsewhere) for elsewhere in (True, False)]
    for line in lines:
        line.run()
    assert lines[0].result() == MeasuredLine("s", [[1.0]], None)
    assert lines[1].result().peak_mb is not None
