"""Clever-Hans probes: what a trained model does, measured beside how often it is right.

Each file holds one probe: its definition, its source, and ``measure(subject)``, which returns counts ``{"k": ..., "n": ...}``
and plain numbers for the record, or None where the question makes no sense for the method.
"""

from collections.abc import Callable
from typing import Any

from pitfalls.probes import (
    arm_following,
    first_hop_node,
    forced_free,
    learning_order,
    memorisation,
    other_decodings,
    snowball,
    uncertainty,
    verifier,
)
from pitfalls.probes.base import Subject

__all__ = ["REGISTRY", "Subject", "run_probes"]

REGISTRY: dict[str, Callable[[Subject], dict[str, Any] | None]] = {
    "arm_following": arm_following.measure,
    "first_hop": first_hop_node.measure,
    "forced_free": forced_free.measure,
    "learning_order": learning_order.measure,
    "memorisation": memorisation.measure,
    "other_decodings": other_decodings.measure,
    "snowball": snowball.measure,
    "uncertainty": uncertainty.measure,
    "verifier": verifier.measure,
}


def run_probes(subject: Subject) -> dict[str, dict[str, Any] | None]:
    """Every probe by name; None where one does not apply."""
    was_training = subject.trunk.training
    subject.trunk.eval()
    try:
        return {name: measure(subject) for name, measure in REGISTRY.items()}
    finally:
        subject.trunk.train(was_training)
