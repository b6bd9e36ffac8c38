"""The progress of a long command: a bar on a terminal, lines in a log, and nothing about what takes seconds."""

import io

import pytest
from rich.console import Console

from pitfalls.experiment import progress as module
from pitfalls.experiment.progress import progress
from pitfalls.training import display


@pytest.fixture
def clock(monkeypatch):
    """The time in seconds, as a list of one number."""
    now = [100.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    return now


def test_lines_come_seconds_apart_with_the_time_left(clock, capsys):
    """Guards against a minute without a sign of life, and against a line per batch."""
    with progress("answers") as tell:
        for done in range(1000, 11000, 1000):
            clock[0] += 2.0
            tell(done, 300000)
    assert capsys.readouterr().err.splitlines() == [
        "answers: 3,000 of 300,000 graphs, 594 s left",
        "answers: 6,000 of 300,000 graphs, 588 s left",
        "answers: 9,000 of 300,000 graphs, 582 s left",
    ]


def test_what_takes_seconds_says_nothing(clock, capsys):
    """Guards against lines on standard error of every short command."""
    with progress("answers") as tell:
        clock[0] += 4.0
        tell(5, 5)
    assert capsys.readouterr() == ("", "")


def test_an_unknown_end_has_no_time_left(clock, capsys):
    with progress("checks x.txt", "lines") as tell:
        clock[0] += 6.0
        tell(8192, None)
    assert capsys.readouterr().err == "checks x.txt: 8,192 lines\n"


@pytest.mark.parametrize("total", [300, None])
def test_a_terminal_has_a_bar_which_goes_at_the_end(monkeypatch, capsys, total):
    """Guards against lines that fill a terminal, and a bar that stands between the results."""
    screen = io.StringIO()
    monkeypatch.setattr(module, "Console", lambda **_: Console(file=screen, force_terminal=True, width=100))
    with progress("checks [a].txt") as tell:
        tell(120, total)
    assert "120 of 300 graphs" in screen.getvalue() if total else "120 graphs" in screen.getvalue()
    assert "checks [a].txt" in screen.getvalue()
    assert "\x1b[2K" in screen.getvalue(), "the bar is erased"
    assert capsys.readouterr() == ("", "")
