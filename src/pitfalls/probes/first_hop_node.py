"""First hop: which node does the model put after the start, when nobody helps it?

A cheat takes any child of the start: right 1 time in d, else another child. Any node of the graph means that not even the
edges out of the start are found. In a run with ``objective=first_hop``, which trains on that token alone, this is the
probe *in isolation*: the paper says that the token stays at chance there as well.

Source: Bachmann & Nagarajan (2024; the indecipherable token, section 4.3 from memory); reproduced in Noroozizadeh et al.
(2025), figure 5, right.
"""

from typing import Any

from pitfalls.probes.base import Subject, count

FIRST_HOP = 1


def measure(subject: Subject) -> dict[str, Any]:
    """Counts of ``right``, ``other_child`` of the start, ``other_node`` of the graph (the start included), ``elsewhere``."""
    edge, hop = subject.task.edges(subject.graphs.prompt), subject.greedy_answers[:, FIRST_HOP, None]
    right = (hop == subject.graphs.target[:, FIRST_HOP, None])[:, 0]
    start = subject.task.start(subject.graphs.prompt)[:, None]
    child = ((edge[:, :, 1] == hop) & (edge[:, :, 0] == start)).any(1)
    node = (edge == hop[..., None]).flatten(1).any(1)
    kinds = {"right": right, "other_child": child & ~right, "other_node": node & ~child, "elsewhere": ~node}
    return {name: count(hits) for name, hits in kinds.items()}
