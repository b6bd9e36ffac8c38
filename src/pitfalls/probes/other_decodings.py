"""Other decodings: how often is the model right with decoding procedures other than its method's own inference?

These numbers show what the model's states contain. They are never the score of a method. A procedure that writes the goal
first solves the reversed task in disguise. One pass over an empty answer is harder than several passes.

Source: the source of each method (`docs/objectives/`).
"""

from pitfalls.evaluation.decoding import PROCEDURES
from pitfalls.probes.probed_model import ProbedModel, count
from pitfalls.runs.counts import Count


def measure(probed: ProbedModel) -> dict[str, Count] | None:
    """Return the counts of exact matches by decoding procedure.

    The result is None if no other procedure gives different answers, or if the method does not answer whole paths.
    """
    others = [name for name in probed.objective.decoders[1:] if not PROCEDURES[name].same_as_autoregressive]
    if not others or not probed.answers_whole_paths:
        return None
    return {name: count((probed.answers(procedure=name) == probed.graphs.target).all(1)) for name in others}
