"""The command line that all scripts share: common options, and one-line messages for users' errors.

Neither torch nor hydra is imported here, so that ``--help`` and messages about wrong options appear at once.
"""

import argparse
import difflib
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table as TerminalTable
from rich.text import Text

from pitfalls.results.formats import Table
from pitfalls.schemas import ConfigError, PitfallsError, printable
from pitfalls.training.interrupt import Interrupted
from pitfalls.training.processes import from_environment

WANTS_TRACEBACKS = os.environ.get("HYDRA_FULL_ERROR") == "1"
LOG_WIDTH = 160
"""Number of columns of a table in a file or a pipe, which has no width of its own."""
MAX_INTEGER = 2**53
OUT_OF_MEMORY = (
    "out of memory: lower training.batch_size or --graphs, raise training.accumulation, which splits a batch, "
    "or take a smaller model"
)
DEFAULT_GRAPHS = 1000
"""Number of test graphs that scripts take if there are as many."""

# ------------------------------------------------------------------ how a script ends


def exit_on_error(program: Callable[[], Any], *, continues: bool = False) -> None:
    """Run a program. An error that its user can mend is printed as one line, every other error with its traceback.

    The exit status is 2 for a wrong config or argument, 1 for another `PitfallsError` or an error of the system, such as a
    full disk, and 130 if the program was stopped by SIGINT or SIGTERM. HYDRA_FULL_ERROR=1 shows all tracebacks.

    Args:
        program: a function without arguments.
        continues: whether the same command continues a stopped program. The last line then mentions it.
    """
    if WANTS_TRACEBACKS:
        program()
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # schedulers stop a program by SIGTERM: treat it as Ctrl-C
    try:
        program()
    except ConfigError as error:
        sys.exit(fail(f"error: {error}", 2))
    except BrokenPipeError:  # the reader, such as head, has stopped reading. Nothing must be flushed at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (PitfallsError, OSError) as error:
        sys.exit(fail(f"error: {error}", 1))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        sys.exit(fail(f"error: {OUT_OF_MEMORY}", 1))
    except (KeyboardInterrupt, Interrupted) as stopped:
        how = f"; the same command continues: {_command()}" if continues else ""
        sys.exit(fail(f"{str(stopped) or 'stopped'}{how}", 130))
    finally:
        signal.signal(signal.SIGTERM, before)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of Python or torch says that the memory of the CPU or GPU is exhausted."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "can't allocate memory" in str(error)


def fail(message: str, status: int) -> int:
    """Print a message on standard error, as one line that is safe for a terminal, and return the exit status."""
    print(printable(message), file=sys.stderr)
    return status


def _command() -> str:
    """Return the command that the user typed."""
    n = from_environment().n
    start = ["python"] if n == 1 else ["torchrun", f"--nproc-per-node={os.environ.get('LOCAL_WORLD_SIZE', n)}"]
    return shlex.join([*start, *sys.argv])


# ------------------------------------------------------------------ what a script prints on


def console() -> Console:
    """Return the console for standard output: as wide as the terminal, or ``LOG_WIDTH`` columns in a file or a pipe."""
    plain: Any = {"markup": False, "emoji": False}  # names may hold brackets and colons
    return Console(**plain) if sys.stdout.isatty() else Console(width=LOG_WIDTH, **plain)


def terminal_table(table: Table) -> TerminalTable:
    """Return a table for rich to print, with the columns in ``shown`` only."""
    table = table.for_people()
    shown = TerminalTable(title=_lines(table.title), caption=_lines(table.note), caption_justify="left")
    for i, name in enumerate(table.header):
        are_numbers = all(row[i][:1].isdigit() or row[i][:1] in ("", "-") for row in table.rows)
        shown.add_column(Text(name), justify="right" if are_numbers else "left", overflow="fold")
    for row in table.rows:
        shown.add_row(*(Text(printable(cell)) for cell in row))
    return shown


def _lines(text: str) -> Text:
    """Return a text of several lines for rich. Each line is safe for a terminal."""
    return Text("\n".join(map(printable, text.splitlines())))


# ------------------------------------------------------------------ options


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line. Its help is the unchanged docstring of its script."""

    positional: tuple[str, str] | None = None
    """The name in the help and the attribute of the last argument without an option, such as RUN."""

    def __init__(self, description: str | None) -> None:
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with status 2."""
        sys.exit(fail(f"error: {message}", 2))

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        """Add an argument, as argparse does."""
        action = super().add_argument(*names, **options)
        if not action.option_strings:
            self.positional = str(action.metavar or action.dest), action.dest
        return action

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Return the arguments. One too many, such as a second RUN, is told with the remedy."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown and self.positional and not unknown[0].startswith("-"):
            metavar, name = self.positional
            self.error(one_at_a_time(unknown[0], metavar, getattr(found, name)))
        if unknown:
            self.error(f"{unknown[0]}: there is no such option or argument; {self._nearest(unknown[0])}")
        return found

    def _nearest(self, unknown: str) -> str:
        """Return what to write instead of an option that does not exist."""
        near = difflib.get_close_matches(unknown.partition("=")[0], self._option_string_actions, n=1)
        return f"did you mean {near[0]}?" if near else "--help lists all"

    def add_run(self) -> None:
        """Add RUN: the folder of a run."""
        self.add_argument("run", metavar="RUN", type=Path, help="the folder of a run that has a checkpoint")

    def add_graphs(self, default: int | None, text: str = "number of graphs", *, required: bool = False) -> None:
        """Add ``--graphs N``: the number of graphs that a run answers."""
        shown = text if default is None else f"{text} (default: {default:,})"
        self.add_argument("--graphs", metavar="N", type=integer(1), default=default, help=shown, required=required)

    def add_test_graphs(self, text: str = "number of test graphs") -> None:
        """Add ``--graphs N``: the number of a run's test graphs. Without it, `n_test_graphs` decides."""
        self.add_graphs(None, f"{text} (default: {DEFAULT_GRAPHS:,}, or all if there are fewer)")

    def add_seed(self) -> None:
        """Add ``--seed S``: the root seed of all random draws of a script."""
        self.add_argument("--seed", metavar="S", type=integer(0), default=0, help="seed of all random draws (default: 0)")

    def add_data(self) -> None:
        """Add ``--data FILE``: graphs of a file instead of new ones."""
        text = "take the first graphs of a file with lines a,b|...|y,z/start,goal=start,...,goal instead of new graphs"
        self.add_argument("--data", metavar="FILE", type=Path, help=text)

    def add_threads(self) -> None:
        """Add ``--threads N``: the number of CPU threads of torch."""
        self.add_argument("--threads", metavar="N", type=integer(1, 1024), default=2, help="CPU threads (default: 2)")

    def add_json(self) -> None:
        """Add ``--json``: one JSON object instead of a table."""
        self.add_argument("--json", action="store_true", help="print one JSON object instead of a table")

    def add_runs_dir(self, default: Path) -> None:
        """Add ``--runs-dir DIR``: the folder with the folders of runs."""
        self.add_argument("--runs-dir", metavar="DIR", type=Path, default=default, help="folder of the runs (default: runs)")

    def add_results_dir(self, default: Path) -> None:
        """Add ``--results-dir DIR``: the folder with the kept results."""
        text = "the folder with the kept results of all sets (default: results)"
        self.add_argument("--results-dir", metavar="DIR", type=Path, default=default, help=text)


def one_at_a_time(second: object, metavar: str, first: object) -> str:
    """Return the message about a second argument where a script takes one."""
    return (
        f"{second}: this script takes one {metavar} at a time, and {first} was given; call it once for each "
        "(a pattern such as runs/* may stand for several)"
    )


def n_test_graphs(asked: int | None, there: int) -> int:
    """Return the number of test graphs to answer: the one asked for, or else ``DEFAULT_GRAPHS`` or all that are there."""
    return min(DEFAULT_GRAPHS, there) if asked is None else asked


def integer(low: int, high: int = MAX_INTEGER) -> Callable[[str], int]:
    """Return a type for argparse: an integer in low..high, written in digits only."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high):
            bounds = f"in {low}..{high}" if high < MAX_INTEGER else f">= {low}"
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not an integer {bounds}")
        return int(text)

    return parse


def existing_folder(path: Path, remedy: str, option: str = "") -> Path:
    """Return the path of an existing folder.

    Args:
        path: the folder.
        remedy: what to do if there is none.
        option: the option that names it, for the message, such as ``--runs``. Empty for an argument without a name.

    Raises:
        ConfigError: there is no such folder.
    """
    if not path.is_dir():
        raise ConfigError(f"{option} {path}: {'a file, not a folder' if path.exists() else 'no such folder'}; {remedy}".lstrip())
    return path


def existing_file(path: Path, remedy: str, option: str = "") -> Path:
    """Return the path of an existing file that can be read. The arguments are those of `existing_folder`.

    Raises:
        ConfigError: there is no such file, or it is a folder, or it cannot be read.
    """
    what = None
    if not path.is_file():
        what = "a folder, not a file" if path.is_dir() else "a pipe or a device, not a file" if path.exists() else "no such file"
    elif not os.access(path, os.R_OK):
        what = "it cannot be read"
    if what is not None:
        raise ConfigError(f"{option} {path}: {what}; {remedy}".lstrip())
    return path


def check_folders(runs_dir: Path, results_dir: Path, *, keep: bool) -> None:
    """Check ``--runs-dir`` and ``--results-dir`` before anything is computed. With ``keep``, the results folder may be made.

    Raises:
        ConfigError: the folder of runs cannot be written to, or there is no results folder. The message names the option.
    """
    writable_folder(runs_dir, "--runs-dir")
    if keep:
        writable_folder(results_dir, "--results-dir")
    else:
        existing_folder(results_dir, "give the folder with the kept results", "--results-dir")


def writable_folder(path: Path, option: str) -> Path:
    """Return the path of a folder that files can be written to. It need not exist yet, and it is not made here.

    Args:
        path: the folder.
        option: the option that names it, for the message: ``--output``, or ``runs_dir=`` for a key.

    Raises:
        ConfigError: a file is in the way, or the folder or the one that it would be made in cannot be written to.
    """
    shown = f"{option}{path}" if option.endswith("=") else f"{option} {path}"
    there = next(folder for folder in (path, *path.absolute().parents) if os.path.lexists(folder))
    if not there.is_dir():
        raise ConfigError(f"{shown}: {there} is a file, not a folder; choose another folder")
    try:
        tempfile.TemporaryFile(dir=there).close()  # access rights do not say it: root has them in /proc, too
    except OSError as error:
        raise ConfigError(f"{shown}: {there} cannot be written to ({error.strerror}); choose another folder") from None
    return path
