"""Python in a process of its own, for what is measured as a user runs it."""

import subprocess
import sys
from collections.abc import Sequence


def run_python(arguments: Sequence[str]) -> str:
    """What ``python ARGUMENTS`` prints.

    Raises:
        RuntimeError: it fails, with what it said last.
    """
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr.strip()[-500:]}")
    return done.stdout
