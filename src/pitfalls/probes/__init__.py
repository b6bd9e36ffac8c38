"""Clever-Hans probes: measures of a trained model's behaviour beyond its accuracy.

Each file holds one probe: its definition, its source, and ``measure(probed)``. That function returns the struct that the record
keeps (`pitfalls.runs.probe_records`), or None where the question makes no sense for the method, the graph or the training.
``absent(probed)`` then says which of these it is.
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
from pitfalls.probes.probed_model import ProbedModel
from pitfalls.runs.probe_records import Probes

__all__ = ["REGISTRY", "ProbedModel", "absent_probes", "run_probes"]

REGISTRY: dict[str, Callable[[ProbedModel], Any]] = {
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
"""The probes by the name that the record has for them."""

REASONS: dict[str, Callable[[ProbedModel], str | None]] = {
    "arm_following": arm_following.absent,
    "forced_free": forced_free.absent,
    "learning_order": learning_order.absent,
    "memorisation": memorisation.absent,
    "other_decodings": other_decodings.absent,
    "snowball": snowball.absent,
    "uncertainty": uncertainty.absent,
    "verifier": verifier.absent,
}
"""Functions that say why a probe is absent, by name. The probe ``first_hop`` never is."""


def absent_probes(probed: ProbedModel) -> dict[str, str]:
    """Return why a probe has no result, by the name of each probe without one."""
    return {name: reason for name, absent in REASONS.items() if (reason := absent(probed)) is not None}


def run_probes(probed: ProbedModel, tell: Callable[[int, int], object] = lambda done, total: None) -> Probes:
    """Return the results of all probes. The train/eval mode of the trunk is restored.

    ``tell`` is told after each probe how many are done, and of how many.
    """
    found = {}
    was_training = probed.trunk.training
    probed.trunk.eval()
    try:
        for name, measure in REGISTRY.items():
            found[name] = measure(probed)
            tell(len(found), len(REGISTRY))
        return Probes(**found)
    finally:
        probed.trunk.train(was_training)
