"""The origin of a result: commit, versions of packages, hardware."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from pitfalls.runs.records import Hardware

VERSIONED = ("torch", "transformers", "safetensors", "numpy", "hydra-core", "omegaconf", "pitfalls")
TRACKED = ("src", "conf", "scripts", "constraints.txt")
"""Paths that have to be committed for a result to count as coming from a clean tree."""


def environment(root: Path) -> dict[str, Any]:
    """Return the current commit, versions and hardware.

    Args:
        root: the top folder of the checkout that the code runs from. If it is no top folder of a checkout, the commit is
            null: the environment of an installed package may lie in the checkout of another project.
    """
    ours = _is_checkout(root)
    commit, dirty = (_git(root, "rev-parse", "HEAD"), _dirty(root)) if ours else (None, None)
    return {"commit": commit, "dirty": dirty, **_versions(), "hardware": _hardware()}


def _is_checkout(root: Path) -> bool:
    top = _git(root, "rev-parse", "--show-toplevel")
    return top is not None and Path(top).resolve() == root.resolve()


def _git(root: Path, *args: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _dirty(root: Path) -> bool | None:
    status = _git(root, "status", "--porcelain", "--", *TRACKED)
    return None if status is None else bool(status)


def _versions() -> dict[str, Any]:
    versions = {"python": platform.python_version()}
    return {"versions": versions | {name: importlib.metadata.version(name) for name in VERSIONED}}


def _hardware() -> Hardware:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0] if names else cpu
    return Hardware(cpu, os.cpu_count(), platform.system())
