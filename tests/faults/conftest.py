"""Runs that are killed, stopped or starved for real. Then the same command is given once more, and its numbers are compared.

Each run is a process of its own, forked from the tests' process. The output of ``make faults`` ends with a table of the faults.
"""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest

from pitfalls.runs import run_folder
from tests.tiny_runs import TINY, numbers, start

TIMES = int(os.environ.get("FAULT_TIMES", "1"))
tried: dict[str, list[tuple[int, int]]] = defaultdict(list)
"""(Runs lost, runs with other numbers) of each try, by fault."""


class Judge:
    """A comparison of runs with undisturbed ones, and the table of its results."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.whole = folder, {}

    def expected(self, overrides: tuple[str, ...]) -> object:
        """Return the numbers of an undisturbed run."""
        if overrides not in self.whole:
            runs_dir = self.folder / str(len(self.whole))
            child = start([*TINY, *overrides, f"runs_dir={runs_dir}"], self.folder / "log")
            assert child.wait() == 0, child.text
            self.whole[overrides] = numbers(next(runs_dir.glob("*-*")))
        return self.whole[overrides]

    def __call__(self, fault: str, runs_dir: Path, jobs: Sequence[tuple[str, ...]] = ((),)) -> None:
        """Check that every job has a record in ``runs_dir`` with the numbers of an undisturbed run."""
        finished = {path.name: path for path in runs_dir.glob("*-*") if run_folder.is_finished(path)}
        lost = len(jobs) - len(finished)
        found = [numbers(path) for path in finished.values()]
        changed = sum(self.expected(job) not in found for job in jobs) - lost
        tried[fault].append((lost, changed))
        assert (lost, changed) == (0, 0), fault


@pytest.fixture(scope="session")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    """The one judge of all tests, so that undisturbed runs are trained once."""
    return Judge(tmp_path_factory.mktemp("whole"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, in Markdown."""
    if tried:
        terminalreporter.write_line("\n| fault | times tried | runs lost | numbers changed |\n|---|---|---|---|")
        for fault, results in tried.items():
            lost, changed = (sum(column) for column in zip(*results, strict=True))
            terminalreporter.write_line(f"| {fault} | {len(results)} | {lost} | {changed} |")
