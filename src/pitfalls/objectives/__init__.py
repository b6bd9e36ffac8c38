"""Training objectives. Each defines its inputs, its extra parameters, its loss, and the methods that its decoders call.

A new objective is one file here with one subclass of `Objective` (or `NextToken`), and one YAML file of the same name in
``conf/objective/``. Nothing is registered: a file is imported when a config names it.
"""

import inspect
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from pitfalls.schemas import ConfigError, ObjectiveConfig, check_choice

if TYPE_CHECKING:  # imported when needed: torch takes seconds
    import torch

    from pitfalls.objectives.base import Objective, Spec
    from pitfalls.tasks.path_star import PathStar

NAMES = tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in ("__init__", "base")))
"""Names of all objectives. They are the names of the files in this folder."""


def objective_class(name: str) -> "type[Objective]":
    """Return the class of an objective.

    Raises:
        ConfigError: there is no file of this name here, or it has no subclass of `Objective`, or several.
    """
    from pitfalls.objectives.base import Objective

    check_choice("objective.name", name, NAMES)
    module = import_module(f"{__name__}.{name}")
    found = [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Objective) and kind.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise ConfigError(f"{module.__file__} has {len(found)} subclasses of Objective; it needs exactly one")
    return found[0]


def check_objective(config: ObjectiveConfig, task: "PathStar") -> None:
    """Raise an error if an objective does not fit a task. This is called before any compute.

    Raises:
        ConfigError: the horizon is longer than the target, or the objective's own `Objective.check` refuses the config.
    """
    kind = objective_class(config.name)
    horizon = kind.horizon_for(config, task.target_length)
    if horizon > task.target_length:
        raise ConfigError(f"objective.horizon={horizon}: at most {task.target_length} for this task.path_length")
    kind.check(config, task)


def check_trunk(config: ObjectiveConfig, model: str, *, recurrent: bool, positions: bool = True) -> None:
    """Raise an error if an objective sets masks or positions that the trunk cannot take.

    Args:
        config: the parameters of the objective.
        model: the name of the model, for the message.
        recurrent: whether the model is recurrent. For a pretrained model this is known when it is loaded.
        positions: whether the model tells positions from each other.

    Raises:
        ConfigError: it cannot. The message names objective and model.
    """
    needs = objective_class(config.name).needs
    if recurrent and needs:
        raise ConfigError(
            f"objective={config.name} sets {' and '.join(needs)} of its own, and model={model} is "
            f"recurrent: it reads tokens in their order. Choose a Transformer, for example model=gpt_tiny"
        )
    if "positions" in needs and not positions:
        raise ConfigError(
            f"objective={config.name} sets positions of its own, and model={model} has none; set model.learned_positions=true"
        )


def build_objective(config: ObjectiveConfig, spec: "Spec", generator: "torch.Generator") -> "Objective":
    """Return the objective that a config names, with its initial parameters.

    Args:
        config: an instance of the objective's own ``Config``, which `check_objective` accepts for the task.
        spec: the objective's knowledge of the task and the trunk.
        generator: draws all initial parameters of the objective, also those of torch's own layers. The trunk has another
            generator, so its weights are the same for every objective.

    Raises:
        ConfigError: there is no such objective.
    """
    import torch

    from pitfalls.seeding import forked_rng

    kind = objective_class(config.name)
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with forked_rng(generator.device, seed):
        return kind(spec, config, generator)
