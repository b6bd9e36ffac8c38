"""Learning order: after how many samples has each target position been learned?

Next-token models first learn the start and the goal, which are both in the prompt, and then the lookups. According to the
paper and its successors, teacherless models learn from the goal backwards.

Source: Bachmann & Nagarajan (2024), section 5. Noroozizadeh et al. (2025), figure 5, middle (the right-to-left cascade).
"""

from collections.abc import Sequence

from pitfalls.probes.probed_model import ProbedModel
from pitfalls.runs.probe_records import LearningOrder
from pitfalls.runs.records import CurvePoint, EvaluationRow

LEARNED = 0.9
"""Accuracy under teacher forcing from which on a position counts as learned."""


def measure(probed: ProbedModel) -> LearningOrder | None:
    """Return the number of training samples after which each target position was learned.

    A position was learned at the first evaluation from which on its accuracy never fell below 0.9. Without such an
    evaluation its entry is None.

    The result is None for a method without predictions under teacher forcing, or a model without evaluations in training.
    """
    if absent(probed) is not None:
        return None
    points = _points(probed)
    samples = [point.samples for point in points]
    columns = zip(*(point.evaluation.forced_position_accuracy for point in points), strict=True)
    return LearningOrder(learned=LEARNED, samples=[_since(samples, [c.k >= LEARNED * c.n for c in column]) for column in columns])


def absent(probed: ProbedModel) -> str | None:
    """Return the reason why the question makes no sense, or None if it does."""
    points = _points(probed)
    if not points:
        return "there are no evaluations from its training (metrics.jsonl)"
    forced = any(count.n for count in points[-1].evaluation.forced_position_accuracy)
    return None if forced else "the method has no predictions under teacher forcing"


def _points(probed: ProbedModel) -> list[CurvePoint | EvaluationRow]:
    """Return the evaluations on test graphs during training."""
    return [point for point in probed.curve if point.split == "test"]


def _since(samples: Sequence[int], met: Sequence[bool]) -> int | None:
    """Return the samples at the first evaluation from which on all evaluations are met, or None if the last one is not."""
    since = None
    for n, holds in zip(samples, met, strict=True):
        since = (n if since is None else since) if holds else None
    return since
