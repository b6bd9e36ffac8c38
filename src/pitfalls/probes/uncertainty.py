"""Uncertainty: the entropy of the prediction at every target position, given the gold tokens before it.

A Clever Hans holds the d children of the start equally likely, ln d nats, and is certain of everything else.

Source: Bachmann & Nagarajan (2024; the first token is indecipherable, section 4.3 from memory); the measure is our own.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from pitfalls.evaluation.score import forced_entropy
from pitfalls.probes.base import ProbedModel
from pitfalls.runs.records import Moments, Uncertainty


def measure(probed: ProbedModel) -> Uncertainty | None:
    """Entropy in nats per target position, start to goal, as ``sum``, ``sum_sq`` and ``n``; None without forced logits."""
    parts = [forced_entropy(probed.trunk, probed.objective, rows) for rows in probed.slices()]
    if any(part is None for part in parts):
        return None
    entropy = torch.cat([part for part in parts if part is not None])
    return Uncertainty([_moments(column) for column in entropy.double().unbind(1)])


def _moments(values: Float[Tensor, " B"]) -> Moments:
    return Moments(round(float(values.sum()), 6), round(float(values.square().sum()), 6), len(values))
