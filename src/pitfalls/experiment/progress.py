"""The progress of a long command on standard error: a bar on a terminal, elsewhere a line every few seconds.

What takes only seconds says nothing in a log.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pitfalls.training.display import BAR_WIDTH, PLAIN_EVERY_S, Rate

Tell = Callable[[int, int | None], None]
"""A function that is told how much is done, and of how much. None: the whole is not known."""


@contextmanager
def progress(what: str, unit: str = "graphs") -> Iterator[Tell]:
    """Show the progress of the work in this context. It gives the function that is to be told.

    Args:
        what: the work, such as "answers".
        unit: what is counted, in the plural.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain(what, unit)
        return
    columns = (TextColumn(f"{escape(what)}"), BarColumn(BAR_WIDTH), TextColumn("{task.fields[shown]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None, shown="")
        yield lambda done, total: bar.update(task, completed=done, total=total, shown=_amount(done, total, unit))


def _plain(what: str, unit: str) -> Tell:
    """Return a function that prints a line every few seconds, the first one after as many seconds."""
    rate, last = Rate(), time.monotonic()
    rate.update(0, last)

    def tell(done: int, total: int | None) -> None:
        nonlocal last
        now = time.monotonic()
        speed = rate.update(done, now)
        if now - last >= PLAIN_EVERY_S:
            last = now
            left = f", {(total - done) / speed:,.0f} s left" if total is not None and speed else ""
            print(f"{what}: {_amount(done, total, unit)}{left}", file=sys.stderr, flush=True)

    return tell


def _amount(done: int, total: int | None, unit: str) -> str:
    return f"{done:,} {unit}" if total is None else f"{done:,} of {total:,} {unit}"
