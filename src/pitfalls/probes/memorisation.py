"""Memorisation: has the first hop been learned by heart, graph by graph, instead of being planned?

The first hop on the training graphs against graphs that never occurred; the paper's models fit the former
and stay at 1/d on the latter.

Source: Bachmann & Nagarajan (2024; section 4.4 from memory), and arXiv 2502.20548, appendix C, which reran it.
"""

from typing import Any

from pitfalls.probes.base import Subject


def measure(subject: Subject) -> dict[str, Any] | None:
    """Counts of right first hops on ``train`` and on ``test`` graphs; None where training never repeats a graph."""
    if "train" not in subject.evaluations:
        return None
    return {split: vars(subject.evaluations[split].first_hop) for split in ("train", "test")}
