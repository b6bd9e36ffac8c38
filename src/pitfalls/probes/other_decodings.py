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
    if absent(probed) is not None:
        return None
    return {name: count((probed.answers(procedure=name) == probed.graphs.target).all(1)) for name in _others(probed)}


def absent(probed: ProbedModel) -> str | None:
    """Return the reason why the question makes no sense, or None if it does."""
    if not _others(probed):
        return f"the method has no procedure that answers otherwise than its own ({probed.objective.decoders[0]})"
    return probed.is_partial


def _others(probed: ProbedModel) -> list[str]:
    """Return the names of the procedures besides the method's own whose answers may differ from its own."""
    return [name for name in probed.objective.decoders[1:] if not PROCEDURES[name].same_as_autoregressive]
