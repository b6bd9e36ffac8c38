"""First hop: which node does the model put after the start in its own answer?

A cheat takes any child of the start. It is right 1 time in d, and otherwise names another child. A model that names other nodes
does not even find the edges out of the start. A run with ``objective=first_hop`` trains on that token alone. According to the
paper, the token stays at chance there as well.

Source: Bachmann & Nagarajan (2024), section 4.3 on the indecipherable token, from memory. Noroozizadeh et al. (2025),
figure 5, right, reproduce it.
"""

from pitfalls.probes.probed_model import ProbedModel, count
from pitfalls.runs.counts import FIRST_HOP
from pitfalls.runs.probe_records import FirstHopNode


def measure(probed: ProbedModel) -> FirstHopNode:
    """Return the counts of first hops by kind.

    A first hop is ``right``, an ``other_child`` of the start, an ``other_node`` of the graph (the start included), or
    ``elsewhere``.
    """
    edge, hop = probed.task.edges(probed.graphs.prompt), probed.greedy_answers[:, FIRST_HOP, None]
    right = (hop == probed.graphs.target[:, FIRST_HOP, None])[:, 0]
    start = probed.task.start(probed.graphs.prompt)[:, None]
    child = ((edge[:, :, 1] == hop) & (edge[:, :, 0] == start)).any(1)
    node = (edge == hop[..., None]).flatten(1).any(1)
    kinds = {"right": right, "other_child": child & ~right, "other_node": node & ~child, "elsewhere": ~node}
    return FirstHopNode(**{name: count(hits) for name, hits in kinds.items()})
