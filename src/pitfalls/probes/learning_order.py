"""Learning order: after how many samples has each target position been learned?

Next-token models first learn the start and the goal, which are both in the prompt, and then the lookups. According to the
paper and its successors, teacherless models learn from the goal backwards.

Source: Bachmann & Nagarajan (2024), section 5. Noroozizadeh et al. (2025), figure 5, middle (the right-to-left cascade).
"""

from collections.abc import Sequence

from pitfalls.probes.probed_model import ProbedModel
from pitfalls.runs.probe_records import LearningOrder

LEARNED = 0.9
"""Accuracy under teacher forcing from which on a position counts as learned."""


def measure(probed: ProbedModel) -> LearningOrder | None:
    """Return the number of training samples after which each target position was learned.

    A position was learned at the first evaluation from which on its accuracy never fell below 0.9. Without such an
    evaluation its entry is None.

    The result is None for a method without predictions under teacher forcing, or a model without evaluations in training.
    """
    points = [point for point in probed.curve if point.split == "test"]
    if not points or not any(count.n for count in points[-1].evaluation.forced_position_accuracy):
        return None
    samples = [point.samples for point in points]
    columns = zip(*(point.evaluation.forced_position_accuracy for point in points), strict=True)
    return LearningOrder(learned=LEARNED, samples=[_since(samples, [c.k >= LEARNED * c.n for c in column]) for column in columns])


def _since(samples: Sequence[int], met: Sequence[bool]) -> int | None:
    """Return the samples at the first evaluation from which on all evaluations are met, or None if the last one is not."""
    since = None
    for n, holds in zip(samples, met, strict=True):
        since = (n if since is None else since) if holds else None
    return since
