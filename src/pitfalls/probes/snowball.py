"""Snowball: does the model fail because small errors add up while it reads its own tokens?

The snowball argument: each token fails now and then, and with it all later tokens. Exact match would then be the product of the
accuracies under teacher forcing, all of them a little below 1. For a Clever Hans that product is 1/d as well, but only the
first hop's factor is below 1. If its first hop is right, the whole path is right.

Source: the snowball argument of LeCun and others. Bachmann & Nagarajan (2024) distinguish it from their own, from memory.
The measure is ours.
"""

import math

from pitfalls.probes.probed_model import ProbedModel
from pitfalls.runs.counts import Count
from pitfalls.runs.probe_records import Snowball


def measure(probed: ProbedModel) -> Snowball | None:
    """Return the exact match that the snowball argument predicts, and the measured one.

    ``predicted`` is the product of the accuracies under teacher forcing. ``given_right_first_hop`` counts exact matches among
    the answers with a right first hop.

    The result is None for a method that does not answer whole paths or has no predictions under teacher forcing.
    """
    if absent(probed) is not None:
        return None
    test = probed.evaluations["test"]
    shares = [c.share for c in test.forced_position_accuracy]
    return Snowball(
        predicted=math.prod(share for share in shares if share is not None),
        measured=test.exact_match,
        given_right_first_hop=Count(test.exact_match.k, test.first_hop.k),
    )


def absent(probed: ProbedModel) -> str | None:
    """Return the reason why the question makes no sense, or None if it does."""
    return probed.is_partial or probed.has_no_forcing
