"""Other decodings: what the model answers when it is asked in another way than by its method's own inference.

A method that writes the goal's side first solves the reversed task in disguise, and one pass over an empty answer asks more of it
than several, so these never are a method's score; they tell what its states hold.

Source: the decodings of each method's own source (`docs/objectives.md`).
"""

from pitfalls.evaluation.decoding import PROCEDURES
from pitfalls.probes.base import ProbedModel, count
from pitfalls.runs.records import Count


def measure(probed: ProbedModel) -> dict[str, Count] | None:
    """Counts of exact matches by decoding; None for a method that has one alone, or does not answer whole paths."""
    others = [name for name in probed.objective.decoders[1:] if not PROCEDURES[name].same_as_autoregressive]
    if not others or not probed.answers_whole_paths:
        return None
    return {name: count((probed.answers(procedure=name) == probed.graphs.target).all(1)) for name in others}
