"""Memorisation: has the first hop been learned by heart, graph by graph, instead of being planned?

The first hop on the training graphs against graphs that never occurred; the paper's models fit the former
and stay at 1/d on the latter.

Source: Bachmann & Nagarajan (2024; section 4.4 from memory), and arXiv 2502.20548, appendix C, which reran it.
"""

from pitfalls.probes.base import ProbedModel
from pitfalls.runs.records import Memorisation


def measure(probed: ProbedModel) -> Memorisation | None:
    """Counts of right first hops on ``train`` and on ``test`` graphs; None where training never repeats a graph."""
    if "train" not in probed.evaluations:
        return None
    return Memorisation(train=probed.evaluations["train"].first_hop, test=probed.evaluations["test"].first_hop)
