"""Forced against free: accuracy under teacher forcing, and in the model's own answers.

    forced        position i given the gold tokens before it
    after_right   position i of the model's own answers, among those whose first hop is right
    after_wrong   the same, among those whose first hop is wrong

A cheat is right under teacher forcing and after a right first hop. After a wrong one it is wrong, except at the goal if it copies
that from the prompt. A model that finds later tokens without the first hop is right after a wrong one as well.

Source: Bachmann & Nagarajan (2024) on teacher forcing against autoregression. The split by first hop is ours.
"""

from pitfalls.metrics import correct
from pitfalls.probes.probed_model import ProbedModel, count
from pitfalls.runs.counts import FIRST_HOP
from pitfalls.runs.probe_records import ForcedFree


def measure(probed: ProbedModel) -> ForcedFree | None:
    """Return the counts per target position, start to goal. The result is None for a method that does not answer whole paths."""
    if absent(probed) is not None:
        return None
    right = correct(probed.greedy_answers, probed.graphs.target)
    hop = right[:, FIRST_HOP]
    return ForcedFree(
        forced=probed.evaluations["test"].forced_position_accuracy,
        after_right=[count(column[hop]) for column in right.unbind(1)],
        after_wrong=[count(column[~hop]) for column in right.unbind(1)],
    )


def absent(probed: ProbedModel) -> str | None:
    """Return the reason why the question makes no sense, or None if it does."""
    return probed.is_partial
