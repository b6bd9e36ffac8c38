"""Learning order: after how many samples has each target position been learned?

Next-token models learn the goal and the start (both stand in the prompt), then the lookups; teacherless ones, the paper and
its successors say, from the goal backwards.

Source: Bachmann & Nagarajan (2024), section 5; Noroozizadeh et al. (2025), figure 5, middle (the right-to-left cascade).
"""

from collections.abc import Sequence
from typing import Any

from pitfalls.probes.base import Subject

LEARNED = 0.9
"""Accuracy given the gold tokens before, from which on a position counts as learned."""


def measure(subject: Subject) -> dict[str, Any] | None:
    """``samples`` per target position: the first evaluation from which on accuracy never fell below 0.9, or None.

    None for a method without a forced reading, or a model without a training history.
    """
    rows = [row for row in subject.curve if row["split"] == "test"]
    if not rows or not any(c["n"] for c in rows[-1]["evaluation"]["forced_position_accuracy"]):
        return None
    samples = [row["samples"] for row in rows]
    columns = zip(*(row["evaluation"]["forced_position_accuracy"] for row in rows), strict=True)
    return {"learned": LEARNED, "samples": [_since(samples, [c["k"] >= LEARNED * c["n"] for c in column]) for column in columns]}


def _since(samples: Sequence[int], met: Sequence[bool]) -> int | None:
    """The first of the evaluations at the end that are all met."""
    since = None
    for n, holds in zip(samples, met, strict=True):
        since = (n if since is None else since) if holds else None
    return since
