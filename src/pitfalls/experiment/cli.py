"""How every script ends: what its user can mend is one line and an exit status, not a traceback."""

import os
import shlex
import sys
from collections.abc import Callable
from typing import Any

from pitfalls.runs.lock import RunTakenError
from pitfalls.schemas import ConfigError
from pitfalls.training.interrupt import Interrupted
from pitfalls.training.processes import from_environment

WANTS_TRACEBACKS = os.environ.get("HYDRA_FULL_ERROR") == "1"


def exit_on_error(program: Callable[[], Any]) -> None:
    """Run a program; print an error as one line instead of a traceback (HYDRA_FULL_ERROR=1 shows it).

    Exit status 2 for a wrong config, 1 for a run that failed, 130 for one that was stopped.
    """
    if WANTS_TRACEBACKS:
        program()
        return
    try:
        program()
    except ConfigError as error:
        sys.exit(fail(f"error: {error}", 2))
    except BrokenPipeError:  # whoever reads, such as head, has seen enough; nothing is left to be flushed at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (FloatingPointError, OSError, ValueError, RunTakenError) as error:
        sys.exit(fail(f"error: {error}", 1))
    except (KeyboardInterrupt, Interrupted) as stopped:
        sys.exit(fail(f"{str(stopped) or 'stopped'}; the same command continues: {_command()}", 130))


def fail(message: str, status: int) -> int:
    """Say why; returns the status to exit with."""
    print(message, file=sys.stderr)
    return status


def _command() -> str:
    """What the user typed."""
    n = from_environment().n
    start = ["python"] if n == 1 else ["torchrun", f"--nproc-per-node={os.environ.get('LOCAL_WORLD_SIZE', n)}"]
    return shlex.join([*start, *sys.argv])
