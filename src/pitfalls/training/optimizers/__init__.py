"""Optimizers. Each decides which parameters it updates how, with optimizers of torch.

A new optimizer is one file here with one subclass of `Method`, and one YAML file of the same name in ``conf/optimizer/``. Nothing
is registered: a file is imported when a config names it.
"""

import inspect
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from pitfalls.schemas import ConfigError, OptimizerConfig, TrainingConfig, check_choice

if TYPE_CHECKING:  # imported when needed: torch takes seconds
    from pitfalls.models.trunk import Trunk
    from pitfalls.objectives.base import Objective
    from pitfalls.training.optimizers.base import Method, Optimizers

NAMES = tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in ("__init__", "base")))
"""Names of all optimizers. They are the names of the files in this folder."""


def method_class(name: str) -> "type[Method]":
    """Return the class of an optimizer.

    Raises:
        ConfigError: there is no file of this name here, or it has no subclass of `Method`, or several.
    """
    from pitfalls.training.optimizers.base import Method

    check_choice("optimizer.name", name, NAMES)
    module = import_module(f"{__name__}.{name}")
    found = [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Method) and kind.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise ConfigError(f"{module.__file__} has {len(found)} subclasses of Method; it needs exactly one")
    return found[0]


def make_optimizers(trunk: "Trunk", objective: "Objective", config: OptimizerConfig, training: TrainingConfig) -> "Optimizers":
    """Return the optimizer that a config names, for all trainable parameters of a trunk and an objective.

    Args:
        trunk: the model.
        objective: its objective.
        config: an instance of the optimizer's own ``Config``.
        training: the settings of the run.

    Raises:
        ConfigError: there is no such optimizer.
    """
    from pitfalls.training.optimizers.base import Optimizers, weights_of

    weights = weights_of(trunk, objective)
    return Optimizers(weights, method_class(config.name).parts(weights, config, training))
