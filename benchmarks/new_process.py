"""Python in a new process, to time programs as a user starts them."""

import subprocess
import sys
from collections.abc import Sequence

from pitfalls.experiment.config import ROOT


def run_python(arguments: Sequence[str]) -> str:
    """Return the output of ``python ARGUMENTS``. It runs in the top folder of the checkout, where ``benchmarks`` can be imported.

    Raises:
        RuntimeError: the program fails. The message has the end of its error output.
    """
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr.strip()[-500:]}")
    return done.stdout
