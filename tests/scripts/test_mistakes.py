"""A wrong option of any script is one line with the option, its value and the remedy, before anything is computed."""

import re
import runpy
import sys
from pathlib import Path

import pytest

from pitfalls.experiment.cli import exit_on_error
from pitfalls.runs.files import write_json
from tests.tiny_runs import a_record, plain

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def call(monkeypatch, capsys):
    """A function that runs a script from the top of the checkout, and returns exit status, output and errors."""
    monkeypatch.chdir(ROOT)

    def run(name: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        status = 0
        try:
            exit_on_error(runpy.run_path(str(ROOT / "scripts" / f"{name}.py"))["main"])
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


NUMBERS = {
    "evaluate": (["RUN"], {"--graphs": 1, "--seed": 0, "--threads": 1}),
    "inspect_run": (["RUN"], {"--graphs": 1, "--seed": 0, "--threads": 1}),
    "probe": (["RUN"], {"--graphs": 1, "--threads": 1}),
    "decode": (["RUN"], {"--graphs": 1, "--seed": 0, "--threads": 1}),
    "check_model": (["RUN"], {"--seed": 0, "--threads": 1}),
    "benchmark": ([], {"--threads": 1}),
    "degenerate": ([], {"--graphs": 1, "--threads": 1}),
    "reproduce": ([], {"--workers": 1, "--only": 0}),
    "make_data": ([], {"--degree": 1, "--path-length": 2, "--n-values": 2, "--graphs": 1, "--seed": 0, "--targets-per-graph": 1}),
}
"""Scripts with their arguments, and the least number that each numeric option takes."""


def test_every_numeric_option_is_listed():
    """Guards against an option that is checked by ``int``, whose mistakes come from torch."""
    helpers = {"--graphs": r"add_(test_)?graphs\(", "--seed": r"add_seed\(", "--threads": r"add_threads\("}
    for path in (ROOT / "scripts").glob("*.py"):
        text = path.read_text()
        kinds = set(re.findall(r"type=(\w+)", text))
        assert kinds <= {"Path", "integer"}, path
        found = {option for option, pattern in helpers.items() if re.search(pattern, text)}
        found |= set(re.findall(r'"(--[\w-]+)", metavar="N", type=integer', text)) | set(
            re.findall(r'\("(--[\w-]+)", \d+, "', text)
        )
        assert found == set(NUMBERS.get(path.stem, ([], {}))[1]), path


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        (name, option, value)
        for name, (_, options) in NUMBERS.items()
        for option, least in options.items()
        for value in (least - 1, "1.5", "1e3", "x", "", "9" * 30, "nan")
    ],
)
def test_a_wrong_number_is_one_line(call, name, option, value):
    """Guards against ``--threads 0``, which torch refuses by a traceback."""
    status, printed, errors = call(name, *NUMBERS[name][0], f"{option}={value}")
    assert (status, printed) == (2, "")
    assert f"{option}: {str(value)!r} is not an integer" in errors
    assert len(errors.splitlines()) == 1


def test_collect_counts_a_copied_run_once(call, tmp_path, config):
    """Guards against silence about the copies, and against an exit status that says that something is broken."""
    for name in ("run", "run-copy"):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "record.json", plain(a_record(config)) | {"run": "run"})
    status, printed, errors = call("collect", tmp_path)
    assert (status, len(printed.splitlines())) == (0, 2)
    assert errors == f"not counted again: {tmp_path / 'run-copy'}: it holds the run of {tmp_path / 'run'}\n"


def test_collect_prints_no_empty_line(call, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "record.json").write_text("{}")
    status, printed, errors = call("collect", tmp_path)
    assert (status, printed) == (1, "")
    assert errors.startswith("left out: ")


def test_a_check_leaves_nothing_behind(call, tmp_path):
    """Guards against a folder that a dry run makes."""
    status, _, errors = call("reproduce", "--dry-run", "--runs-dir", tmp_path / "new" / "runs")
    assert status == 0, errors
    assert not list(tmp_path.iterdir())
