"""Learning order: after how many samples has each target position been learned?

Next-token models learn the goal and the start (both stand in the prompt), then the lookups; teacherless ones, the paper and
its successors say, from the goal backwards.

Source: Bachmann & Nagarajan (2024), section 5; Noroozizadeh et al. (2025), figure 5, middle (the right-to-left cascade).
"""

from collections.abc import Sequence

from pitfalls.probes.base import ProbedModel
from pitfalls.runs.records import LearningOrder

LEARNED = 0.9
"""Accuracy given the gold tokens before, from which on a position counts as learned."""


def measure(probed: ProbedModel) -> LearningOrder | None:
    """``samples`` per target position: the first evaluation from which on accuracy never fell below 0.9, or None.

    None for a method without a forced reading, or a model without a training history.
    """
    points = [point for point in probed.curve if point.split == "test"]
    if not points or not any(count.n for count in points[-1].evaluation.forced_position_accuracy):
        return None
    samples = [point.samples for point in points]
    columns = zip(*(point.evaluation.forced_position_accuracy for point in points), strict=True)
    return LearningOrder(learned=LEARNED, samples=[_since(samples, [c.k >= LEARNED * c.n for c in column]) for column in columns])


def _since(samples: Sequence[int], met: Sequence[bool]) -> int | None:
    """The first of the evaluations at the end that are all met."""
    since = None
    for n, holds in zip(samples, met, strict=True):
        since = (n if since is None else since) if holds else None
    return since
