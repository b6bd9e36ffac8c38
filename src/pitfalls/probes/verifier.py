"""Verifier: can a checker that knows the right answer rescue the model by looking at several of its answers?

    solved[k]   the right path is among k answers, sampled at temperature 1

A cheat gains what blind guessing of an arm gains, 1 - (1 - 1/d)^k, and nothing beyond: what was never learned cannot be
selected for.

Source: Bachmann & Nagarajan (2024; from memory: verifiers and other wrappers around the next-token predictor); Cobbe et al.
(2021) for the wrapper. The measure is our own.
"""

import torch

from pitfalls.probes.base import ProbedModel, count
from pitfalls.runs.records import Verifier

N_ANSWERS = (1, 2, 4, 8)


def measure(probed: ProbedModel) -> Verifier | None:
    """Counts of graphs solved within k answers, by k; None for a method that does not answer whole paths."""
    if not probed.answers_whole_paths:
        return None
    draws = probed.draws(1)
    hits = torch.stack([(probed.answers(draws) == probed.graphs.target).all(1) for _ in range(max(N_ANSWERS))])
    return Verifier({str(k): count(hits[:k].any(0)) for k in N_ANSWERS})
