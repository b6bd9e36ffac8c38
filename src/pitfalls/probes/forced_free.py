"""Forced against free: what teacher forcing hides.

    forced        position i given the gold tokens before it
    after_right   position i of the model's own answers, among those whose first hop is right
    after_wrong   the same, among those whose first hop is wrong

A cheat is right when forced and after a right first hop, and wrong after a wrong one (but for the goal, if it copies that
from the prompt). A model that finds a later token without the first hop is right after a wrong one as well.

Source: Bachmann & Nagarajan (2024; teacher forcing against autoregression); the split by first hop is our own.
"""

from typing import Any

from pitfalls.metrics import correct
from pitfalls.probes.base import Subject, count
from pitfalls.probes.first_hop_node import FIRST_HOP


def measure(subject: Subject) -> dict[str, Any] | None:
    """Counts per target position, start to goal; None for a method that does not answer whole paths."""
    if not subject.answers_whole_paths:
        return None
    right = correct(subject.greedy_answers, subject.graphs.target)
    led = right[:, FIRST_HOP]
    return {
        "forced": [vars(c) for c in subject.evaluations["test"].forced_position_accuracy],
        "after_right": [count(column[led]) for column in right.unbind(1)],
        "after_wrong": [count(column[~led]) for column in right.unbind(1)],
    }
