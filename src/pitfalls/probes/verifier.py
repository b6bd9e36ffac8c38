"""Verifier: does it help to sample several answers, if a checker then selects the right one?

    solved[k]   the right path is among k answers, sampled at temperature 1

A cheat gains what blind guesses of an arm gain, 1 - (1 - 1/d)^k, and no more: a checker cannot select what the model has
never learned.

Source: Cobbe et al. (2021) for the verifier; Bachmann & Nagarajan (2024) on verifiers and other wrappers around a next-token
predictor, from memory. The measure is our own.
"""

import torch

from pitfalls.probes.base import ProbedModel, count
from pitfalls.runs.records import Verifier

N_ANSWERS = (1, 2, 4, 8)
"""Numbers of answers k."""


def measure(probed: ProbedModel) -> Verifier | None:
    """Return the counts of graphs solved within k answers, by k; None for a method that does not answer whole paths."""
    if not probed.answers_whole_paths:
        return None
    draws = probed.draws(1)
    hits = torch.stack([(probed.answers(draws) == probed.graphs.target).all(1) for _ in range(max(N_ANSWERS))])
    return Verifier({str(k): count(hits[:k].any(0)) for k in N_ANSWERS})
