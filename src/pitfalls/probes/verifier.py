"""Verifier: does it help to sample several answers, if a checker then selects the right one?

    solved[k]   the right path is among k answers, sampled at temperature 1

A cheat gains as much as blind guesses of an arm, 1 - (1 - 1/d)^k, and no more. A checker cannot select an answer that the
model never gives.

Source: Cobbe et al. (2021) for the verifier. Bachmann & Nagarajan (2024) on verifiers and other wrappers around a next-token
predictor, from memory. The measure is ours.
"""

import torch

from pitfalls.probes.probed_model import ProbedModel, count
from pitfalls.runs.probe_records import Verifier

N_ANSWERS = (1, 2, 4, 8)
"""Numbers of answers k that the checker selects from."""


def measure(probed: ProbedModel) -> Verifier | None:
    """Return the counts of graphs solved within k answers, by k. None for a method without whole paths as answers."""
    if absent(probed) is not None:
        return None
    draws = probed.draws(1)
    hits = torch.stack([(probed.answers(draws) == probed.graphs.target).all(1) for _ in range(max(N_ANSWERS))])
    return Verifier({str(k): count(hits[:k].any(0)) for k in N_ANSWERS})


def absent(probed: ProbedModel) -> str | None:
    """Return the reason why the question makes no sense, or None if it does."""
    return probed.is_partial
