"""Other decodings: how often is the model right when it decodes otherwise than by its method's own inference?

These numbers show what the model's states hold. They are never the score of a method: a procedure that writes the goal first
solves the reversed task in disguise, and one pass over an empty answer asks for more than several passes.

Source: the source of each method (`docs/objectives/`).
"""

from pitfalls.evaluation.decoding import PROCEDURES
from pitfalls.probes.base import ProbedModel, count
from pitfalls.runs.records import Count


def measure(probed: ProbedModel) -> dict[str, Count] | None:
    """Return the counts of exact matches by decoding procedure.

    None for a method that has no other procedure with answers of its own, or that does not answer whole paths.
    """
    others = [name for name in probed.objective.decoders[1:] if not PROCEDURES[name].same_as_autoregressive]
    if not others or not probed.answers_whole_paths:
        return None
    return {name: count((probed.answers(procedure=name) == probed.graphs.target).all(1)) for name in others}
