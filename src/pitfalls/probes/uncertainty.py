"""Uncertainty: the entropy of the prediction at every target position, given the gold tokens before it.

A Clever Hans holds the d children of the start equally likely, which is ln d nats, and is certain of every other token.

Source: Bachmann & Nagarajan (2024), section 4.3 on the indecipherable first token, from memory; the measure is our own.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from pitfalls.evaluation.score import forced_entropy
from pitfalls.probes.base import ProbedModel
from pitfalls.runs.records import Moments, Uncertainty


def measure(probed: ProbedModel) -> Uncertainty | None:
    """Return the entropy in nats per target position, start to goal, as sums over the graphs.

    None for a method without predictions under teacher forcing.
    """
    parts = [forced_entropy(probed.trunk, probed.objective, rows) for rows in probed.slices()]
    if any(part is None for part in parts):
        return None
    entropy = torch.cat([part for part in parts if part is not None])
    return Uncertainty([_moments(column) for column in entropy.double().unbind(1)])


def _moments(values: Float[Tensor, " B"]) -> Moments:
    return Moments(round(float(values.sum()), 6), round(float(values.square().sum()), 6), len(values))
