"""Snowball: is the failure one of small errors that add up while the model runs on its own tokens?

If every token failed now and then, and the rest went wrong after it, the exact match would be the product of the
accuracies under teacher forcing, all of them below 1. For a Clever Hans that product is 1/d as well, but it has one factor;
once the first hop is right, the whole path is.

Source: Bachmann & Nagarajan (2024; from memory: the snowball argument of LeCun and others, which the paper tells apart from
its own); the measure is our own.
"""

import math

from pitfalls.probes.base import ProbedModel
from pitfalls.runs.records import Count, Snowball


def measure(probed: ProbedModel) -> Snowball | None:
    """``predicted``: the product over positions; ``measured`` exact match; ``given_right_first_hop``: exact match there.

    None for a method that does not answer whole paths.
    """
    test = probed.evaluations["test"]
    shares = [c.share for c in test.forced_position_accuracy]
    if not probed.answers_whole_paths or None in shares:
        return None
    return Snowball(
        predicted=math.prod(share for share in shares if share is not None),
        measured=test.exact_match,
        given_right_first_hop=Count(test.exact_match.k, test.first_hop.k),
    )
