"""Python in a new process, to time what a user starts from the command line."""

import subprocess
import sys
from collections.abc import Sequence

from pitfalls.experiment.config import ROOT


def run_python(arguments: Sequence[str]) -> str:
    """Return what ``python ARGUMENTS`` prints; it runs in the top folder of the checkout, where ``benchmarks`` can be imported.

    Raises:
        RuntimeError: it fails; the message holds the end of its error output.
    """
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr.strip()[-500:]}")
    return done.stdout
