"""The terminal's display while a run trains: a live panel, or lines of text if standard error is no terminal."""

import sys
import time

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pitfalls.runs.counts import FIRST_HOP, Evaluation
from pitfalls.runs.records import MetricsRow, TrainRow
from pitfalls.schemas import Config
from pitfalls.training.trackers import Tracker

BAR_WIDTH = 40
"""Number of characters of a bar."""
PLAIN_EVERY_S = 5.0
"""Seconds between two lines about training."""


def terminal_display(config: Config) -> list[Tracker]:
    """Return the display for standard error: a live panel on a terminal, lines of text elsewhere."""
    console = Console(stderr=True, markup=False, emoji=False)
    if console.is_terminal:
        return [LivePanel(console, _title(config), config.training.n_samples, config.task.degree)]
    return plain_display(config)


def plain_display(config: Config) -> list[Tracker]:
    """Return a display of lines of text, for runs that share a terminal."""
    return [PlainLines(_title(config), config.training.n_samples)]


def _title(config: Config) -> str:
    task = config.task
    return f"{config.objective.name} on G({task.degree},{task.path_length}) N={task.n_values}, seed {config.seed}"


def forced_or_free(evaluation: Evaluation) -> list[float | None]:
    """Return the accuracy per position under teacher forcing. A method without such predictions gets that of its own answers."""
    return evaluation.free if all(share is None for share in evaluation.forced) else evaluation.forced


class PlainLines:
    """A display of lines on standard error: one every few seconds, and one per evaluation."""

    def __init__(self, title: str, n_samples: int) -> None:
        self.title, self.n_samples, self._last, self._rate = title, n_samples, -PLAIN_EVERY_S, Rate()

    def log(self, row: MetricsRow) -> None:
        """Print a row. A row about training is left out if the last one was moments ago."""
        now = time.monotonic()
        if isinstance(row, TrainRow):
            rate = self._rate.update(row.samples, now) or row.samples_per_s  # one mark gives no rate
            if now - self._last >= PLAIN_EVERY_S:
                self._last = now
                left = (self.n_samples - row.samples) / rate
                self._print(f"{row.samples:>8,} samples  loss {row.loss:.3f}  {rate:,.0f} samples/s  {left:.0f} s left")
        elif row.split == "test":
            positions = " ".join("  -  " if s is None else f"{s:.3f}" for s in forced_or_free(row.evaluation))
            exact = row.evaluation.exact_match.share
            shown = "-" if exact is None else f"{exact:.3f}"
            self._print(f"{row.samples:>8,} samples  test exact {shown}  per position {positions}")

    def _print(self, text: str) -> None:
        print(f"{self.title}: {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Do nothing: every line is already printed."""


class Rate:
    """A meter of samples per second over the last rows, with the time of evaluations included."""

    def __init__(self) -> None:
        self._marks: list[tuple[float, int]] = []

    def update(self, samples: int, now: float) -> float:
        """Add a mark and return the mean rate since the mark 20 before it, or 0 for the first one."""
        self._marks = [*self._marks[-20:], (now, samples)]
        (t0, n0), (t1, n1) = self._marks[0], self._marks[-1]
        return (n1 - n0) / (t1 - t0) if t1 > t0 else 0.0


class LivePanel:
    """A live display: loss, samples/s, time left, and a bar of test accuracy per target position with a mark at 1/d."""

    def __init__(self, console: Console, title: str, n_samples: int, degree: int) -> None:
        self.degree, self._rate, self._evaluation = degree, Rate(), None
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(BAR_WIDTH),
            TextColumn(
                "{task.completed:,.0f}/{task.total:,.0f} samples  loss {task.fields[loss]}  {task.fields[rate]} samples/s"
            ),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task(title, total=n_samples, loss="-", rate="-")
        self._live = Live(self._progress, console=console, refresh_per_second=4)
        self._live.start()

    def log(self, row: MetricsRow) -> None:
        """Show the numbers of a row."""
        if isinstance(row, TrainRow):
            rate = self._rate.update(row.samples, time.monotonic())
            self._progress.update(self._task, completed=row.samples, loss=f"{row.loss:.3f}", rate=f"{rate:,.0f}")
        elif row.split == "test":
            self._live.update(Group(self._progress, position_bars(row.evaluation, self.degree)))

    def close(self) -> None:
        """Leave the last state on the screen."""
        self._live.stop()


def position_bars(evaluation: Evaluation, degree: int) -> Table:
    """Return a table of bars with the test accuracy per target position. Their mark is at 1/d, the score of a blind guess."""
    table, chance = Table.grid(padding=(0, 1)), 1 / degree
    for i, share in enumerate(forced_or_free(evaluation)):
        if share is None:
            continue
        table.add_row(f"  position {i}{' (first hop)' if i == FIRST_HOP else ''}", bar(share, chance), f"{share:.3f}")
    exact = evaluation.exact_match.share
    if exact is not None:
        table.add_row("  exact match", bar(exact, chance), f"{exact:.3f}")
    return table


def bar(share: float, chance: float) -> Text:
    """Return a bar of ``BAR_WIDTH`` characters with a mark at chance: green if nearer to 1 than to chance, or else red."""
    filled, mark = round(share * BAR_WIDTH), min(BAR_WIDTH - 1, round(chance * BAR_WIDTH))
    colour = "green" if share > (1 + chance) / 2 else "red"
    text = Text()
    for i in range(BAR_WIDTH):
        text.append(
            "┃" if i == mark else "█" if i < filled else "·",
            "bold yellow" if i == mark else colour if i < filled else "dim",
        )
    return text
