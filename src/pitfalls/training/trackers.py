"""Where a run's numbers go while it trains. JSON lines always; they are what reports read."""

import json
from pathlib import Path
from typing import Any, Protocol

from pitfalls.records import read_metrics


class Tracker(Protocol):
    """Receives one flat-named row per event."""

    def log(self, row: dict[str, Any]) -> None:
        """Take one row: ``kind`` is "train" or "eval", ``step`` counts optimizer steps."""

    def close(self) -> None:
        """No more rows will come."""


class JsonLines:
    """Appends rows to ``metrics.jsonl``, each written out at once.

    Args:
        path: the file.
        resume_step: rows of later steps are dropped first: the resumed run will write them again.
    """

    def __init__(self, path: Path, *, resume_step: int) -> None:
        kept = [row for row in read_metrics(path.parent) if row["step"] <= resume_step] if resume_step else []
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text("".join(f"{json.dumps(row)}\n" for row in kept))
        partial.replace(path)
        self._file = path.open("a", buffering=1)

    def log(self, row: dict[str, Any]) -> None:
        """Append one row."""
        self._file.write(f"{json.dumps(row, allow_nan=False)}\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

