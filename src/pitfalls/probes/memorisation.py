"""Memorisation: has the model learned the first hops by heart, graph by graph, instead of planning?

The probe compares first hops on training graphs with first hops on new graphs. The paper's models fit the training graphs and
stay at 1/d on new ones.

Source: Bachmann & Nagarajan (2024), section 4.4, from memory. Appendix C of arXiv 2502.20548 repeats it.
"""

from pitfalls.probes.probed_model import ProbedModel
from pitfalls.runs.probe_records import Memorisation


def measure(probed: ProbedModel) -> Memorisation | None:
    """Return the counts of right first hops on training and on test graphs, or None where training never repeats a graph."""
    if absent(probed) is not None:
        return None
    return Memorisation(train=probed.evaluations["train"].first_hop, test=probed.evaluations["test"].first_hop)


def absent(probed: ProbedModel) -> str | None:
    """Return the reason why the question makes no sense, or None if it does."""
    return None if "train" in probed.evaluations else "training never repeats a graph (task.train_graphs=null)"
