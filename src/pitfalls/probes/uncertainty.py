"""Uncertainty: the entropy of the prediction at every target position, given the gold tokens before it.

For a Clever Hans the d children of the start are equally likely: an entropy of ln d nats. It is certain of every other token.

Source: Bachmann & Nagarajan (2024), section 4.3 on the indecipherable first token, from memory. The measure is ours.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from pitfalls.evaluation.score import forced_entropy
from pitfalls.probes.probed_model import ProbedModel
from pitfalls.runs.probe_records import Moments, Uncertainty


def measure(probed: ProbedModel) -> Uncertainty | None:
    """Return the entropy in nats per target position, start to goal, as sums over the graphs.

    The result is None for a method without predictions under teacher forcing.
    """
    if absent(probed) is not None:
        return None
    parts = [forced_entropy(probed.trunk, probed.objective, rows) for rows in probed.slices()]
    entropy = torch.cat([part for part in parts if part is not None])
    return Uncertainty([_moments(column) for column in entropy.double().unbind(1)])


def _moments(values: Float[Tensor, " B"]) -> Moments:
    return Moments(round(float(values.sum()), 6), round(float(values.square().sum()), 6), len(values))


def absent(probed: ProbedModel) -> str | None:
    """Return the reason why the question makes no sense, or None if it does."""
    return probed.has_no_forcing
