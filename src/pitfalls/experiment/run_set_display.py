"""The progress of a set's runs while they train: blocks with bars on a terminal, a line every few seconds elsewhere."""

import sys
import time
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from pitfalls.experiment.run_sets import PlannedRun
from pitfalls.runs.counts import Evaluation
from pitfalls.runs.records import MetricsRow, TrainRow
from pitfalls.schemas import printable
from pitfalls.training.display import BAR_WIDTH, PlainLines, Rate, position_bars


def make_display(runs: Sequence[PlannedRun]) -> "LineDisplay | BlockDisplay":
    """Return the display for standard error, as a context: blocks if it is a terminal, lines otherwise."""
    console = Console(stderr=True, markup=False, emoji=False)
    return BlockDisplay(runs, console) if console.is_terminal else LineDisplay(runs)


class LineDisplay:
    """A display of lines on standard error, for logs."""

    def __init__(self, runs: Sequence[PlannedRun]) -> None:
        self._lines = {run.title: PlainLines(run.title, run.n_samples) for run in runs}

    def __enter__(self) -> "LineDisplay":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def row(self, run: PlannedRun, row: MetricsRow) -> None:
        """Print a line, unless the last one was moments ago."""
        self._lines[run.title].log(row)

    def done(self, run: PlannedRun, message: str) -> None:
        """Print that a run has ended."""
        print(printable(f"{run.title}: {message}"), file=sys.stderr, flush=True)


class BlockDisplay:
    """A display with one block per running run: its progress, and a bar of test accuracy per target position."""

    def __init__(self, runs: Sequence[PlannedRun], console: Console) -> None:
        self._blocks: dict[str, Group] = {}
        self._rates = {run.title: Rate() for run in runs}
        self._last: dict[str, tuple[TrainRow | None, Evaluation | None, float]] = {}
        self._n_done, self._n_runs = sum(run.finished for run in runs), len(runs)
        self._live = Live(console=console, refresh_per_second=4)

    def __enter__(self) -> "BlockDisplay":
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.__exit__(None, None, None)

    def row(self, run: PlannedRun, row: MetricsRow) -> None:
        """Redraw the block of a run."""
        train_row, evaluation, rate = self._last.get(run.title, (None, None, 0.0))
        if isinstance(row, TrainRow):
            train_row, rate = row, self._rates[run.title].update(row.samples, time.monotonic())
        elif row.split == "test":
            evaluation = row.evaluation
        self._last[run.title] = (train_row, evaluation, rate)
        self._blocks[run.title] = self._block(run, train_row, evaluation, rate)
        self._draw()

    def _block(self, run: PlannedRun, row: TrainRow | None, evaluation: Evaluation | None, rate: float) -> Group:
        line = Text(f"{run.title}  ", "bold")
        if row:
            done = row.samples
            filled = round(BAR_WIDTH * done / run.n_samples)
            left = f"{(run.n_samples - done) / rate:.0f} s left" if rate else ""
            line.append("━" * filled, "cyan").append("━" * (BAR_WIDTH - filled), "dim")
            line.append(f"  {done:,}/{run.n_samples:,} samples  loss {row.loss:.3f}  {rate:,.0f} samples/s  {left}", "")
        degree = run.config.task.degree
        return Group(line, position_bars(evaluation, degree)) if evaluation else Group(line)

    def done(self, run: PlannedRun, message: str) -> None:
        """Replace the block of a run by one line above the others."""
        self._blocks.pop(run.title, None)
        self._n_done += 1
        self._live.console.print(printable(f"{run.title}: {message}"))
        self._draw()

    def _draw(self) -> None:
        head = Text(f"{self._n_done} of {self._n_runs} runs finished; Ctrl-C saves, the same command continues", "dim")
        self._live.update(Group(head, *self._blocks.values()))
