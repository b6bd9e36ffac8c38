"""Training objectives: each owns its inputs, its extra parameters, its loss and what a decoder needs.

A new objective is one file here with one subclass of `Objective` (or `NextToken`), and one YAML of the same name in
``conf/objective/``; nothing is registered. A file is imported when a config names it.
"""

import inspect
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from pitfalls.schemas import ObjectiveConfig

if TYPE_CHECKING:  # torch takes seconds to import
    import torch

    from pitfalls.objectives.base import Objective, Spec

NAMES = tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in ("__init__", "base")))
"""Every objective there is: the files of this folder."""


def objective_class(name: str) -> "type[Objective]":
    """The objective of a name.

    Raises:
        ValueError: there is no such file here; or (a mistake in the file) it has no subclass of `Objective`, or several.
    """
    from pitfalls.objectives.base import Objective

    if name not in NAMES:
        raise ValueError(f"objective.name={name}: choose one of {', '.join(NAMES)}")
    module = import_module(f"{__name__}.{name}")
    found = [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Objective) and kind.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise ValueError(f"{module.__file__} has {len(found)} subclasses of Objective; it needs exactly one")
    return found[0]


def build_objective(config: ObjectiveConfig, spec: "Spec", generator: "torch.Generator") -> "Objective":
    """The objective that a config names, with its initial parameters.

    Args:
        config: an instance of the objective's own ``Config``.
        spec: what the objective may know about the task and the trunk.
        generator: draws the objective's own initial parameters, also those that torch's layers draw by themselves; the
            trunk's come from another one, so they are the same for every objective.

    Raises:
        ValueError: there is no such objective, or its parameters do not go with the task.
    """
    import torch

    from pitfalls.seeding import forked_rng

    kind = objective_class(config.name)
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with forked_rng(generator.device, seed):
        return kind(spec, config, generator)
