"""Training objectives: each owns its inputs, its extra parameters, its loss and what a decoder needs.

A new objective is one file here with a subclass of `Objective` (or `NextToken`), one line in ``REGISTRY``, and one YAML
in ``conf/objective/``.
"""

from typing import TYPE_CHECKING

import torch

from pitfalls.objectives.base import Loss, Objective, Spec
from pitfalls.objectives.first_hop import FirstHop
from pitfalls.objectives.next_token import NextToken
from pitfalls.objectives.reversed import Reversed
from pitfalls.objectives.teacherless import Teacherless

if TYPE_CHECKING:
    from pitfalls.schemas import ObjectiveConfig

__all__ = ["REGISTRY", "FirstHop", "Loss", "NextToken", "Objective", "Reversed", "Spec", "Teacherless", "build_objective"]

REGISTRY: dict[str, type[Objective]] = {
    "first_hop": FirstHop,
    "next_token": NextToken,
    "reversed": Reversed,
    "teacherless": Teacherless,
}


def build_objective(config: "ObjectiveConfig", spec: Spec, generator: torch.Generator) -> Objective:
    """The objective that a config names.

    Args:
        config: ``config.name`` is a key of ``REGISTRY``.
        spec: what the objective may know about the task and the trunk.
        generator: draws the objective's own initial parameters; the trunk's come from another one.

    Raises:
        ValueError: the name is not registered.
    """
    if config.name not in REGISTRY:
        raise ValueError(f"objective.name={config.name}: choose one of {', '.join(sorted(REGISTRY))}")
    return REGISTRY[config.name](spec, config, generator)
