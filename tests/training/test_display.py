"""The terminal shows what the rows hold."""

import io

import pytest
from rich.console import Console

from pitfalls.runs.counts import Count, Evaluation
from pitfalls.runs.records import EvaluationRow, TrainRow
from pitfalls.training import display

COUNT = Count(50, 100)
NOTHING = Count(0, 0)


def eval_row(samples, forced, free=None, exact=COUNT):
    evaluation = Evaluation(exact, COUNT, free or forced, forced, COUNT, COUNT, COUNT, "autoregressive", COUNT)
    return EvaluationRow(step=0, samples=samples, split="test", evaluation=evaluation)


def train_row(samples, loss=1.25):
    return TrainRow(step=1, samples=samples, loss=loss, wall_s=1.0, samples_per_s=50.0)


@pytest.mark.parametrize(
    ("share", "chance", "filled", "mark"),
    [
        (0.0, 0.5, 0, 20),
        (1.0, 0.5, 39, 20),
        (0.5, 0.2, 19, 8),
        (1.0, 1.0, 39, 39),
    ],
)
def test_bar_is_as_long_as_the_share_with_a_mark_at_chance(share, chance, filled, mark):
    text = display.bar(share, chance).plain
    assert len(text) == display.BAR_WIDTH
    assert text[mark] == "┃"
    assert text.count("█") == filled


def test_chance_level_is_red_and_a_solved_position_green():
    assert any(span.style == "red" for span in display.bar(0.52, 0.5).spans)
    assert not any(span.style == "red" for span in display.bar(0.99, 0.5).spans)


def test_unanswered_positions_have_no_bar():
    """Guards against a bar at zero, which would show a failure where the method does not answer."""
    table = display.position_bars(eval_row(0, [NOTHING, COUNT, NOTHING], exact=NOTHING).evaluation, 2)
    assert table.row_count == 1


def test_methods_without_forced_reading_show_their_own():
    assert display.forced_or_free(eval_row(0, [NOTHING, NOTHING], [COUNT, COUNT]).evaluation) == [0.5, 0.5]
    assert display.forced_or_free(eval_row(0, [NOTHING, COUNT], [COUNT, NOTHING]).evaluation) == [None, 0.5]


def test_the_first_line_has_a_rate_and_a_time(capsys):
    """Guards against a first line that says "0 samples/s nan s left"."""
    display.PlainLines("run", 1000).log(train_row(100))
    assert "50 samples/s  18 s left" in capsys.readouterr().err


def test_plain_lines_come_seconds_apart_and_with_every_evaluation(capsys, monkeypatch):
    """Guards against a log with a line per step, which nobody reads."""
    now = [0.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    lines = display.PlainLines("run", 1000)
    for samples in (100, 200, 300):
        lines.log(train_row(samples))
        now[0] += 2.0
    lines.log(eval_row(300, [COUNT, COUNT]))
    now[0] += 2.0
    lines.log(train_row(400))
    out = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in out] == ["100", "300", "400"]
    assert "test exact 0.500  per position 0.500 0.500" in out[1]
    assert "loss 1.250" in out[2]
    assert "38 samples/s  16 s left" in out[2]


def test_live_panel_shows_loss_rate_and_bars():
    console = Console(file=io.StringIO(), force_terminal=True, width=160)
    panel = display.LivePanel(console, "run", 1000, 2)
    panel.log(train_row(500, loss=0.125))
    panel.log(eval_row(500, [COUNT, COUNT, COUNT]))
    panel.close()
    shown = console.file.getvalue()
    for words in ("loss 0.125", "500/1,000 samples", "position 1 (first hop)", "┃", "exact match"):
        assert words in shown
