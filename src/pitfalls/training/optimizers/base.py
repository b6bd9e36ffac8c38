"""The interface between an optimizer and the training loop.

`Weight` says what a parameter is, so that an optimizer need not guess from names. `Optimizers` is what the loop, the checkpoint
and the record use: one or several optimizers of torch, each for a part of the parameters.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import Conv1D

from pitfalls.models import hf_internals
from pitfalls.models.trunk import Trunk
from pitfalls.objectives.base import Objective
from pitfalls.schemas import OptimizerConfig, TrainingConfig


@dataclass(frozen=True)
class Weight:
    """A trainable parameter, with what an optimizer has to know of it."""

    name: str
    """Its name in the trunk or the objective, such as ``trunk.lm.transformer.h.0.attn.c_attn.weight``."""
    parameter: nn.Parameter
    hidden: bool
    """Whether it is a matrix from hidden states to hidden states. Embeddings, unembeddings, tables and vectors are not."""
    out_dim: int
    """The dimension of a matrix that its outputs index: 0 in torch's layers, 1 in those of GPT-2."""
    sizes: tuple[int, ...]
    """The numbers of outputs of the matrices that are fused into it, such as those of queries, keys and values."""

    @property
    def decayed(self) -> bool:
        """Whether it gets weight decay: matrices and embeddings do, and biases, norms and marked parameters of a Mamba do not."""
        return self.parameter.dim() >= 2 and not getattr(self.parameter, "_no_weight_decay", False)


@dataclass(frozen=True)
class Part:
    """An optimizer of torch for a part of the parameters."""

    name: str
    """Its name in the record of a run."""
    optimizer: torch.optim.Optimizer
    """The optimizer. The ``lr`` of its groups is their peak learning rate."""
    state: tuple[str, ...]
    """The names of a parameter's tensors in its state. A checkpoint holds them."""


class Method:
    """An optimizer that a config can name."""

    Config: ClassVar[type[OptimizerConfig]] = OptimizerConfig
    """The dataclass of its parameters. Their ranges are checked before any compute."""

    @staticmethod
    def parts(weights: list[Weight], config: Any, training: TrainingConfig) -> list[Part]:
        """Return the optimizers of torch that update the weights. Each weight has to be in exactly one of them.

        Args:
            weights: the parameters of the trunk and the objective, in that order.
            config: an instance of ``Config``.
            training: the settings of the run, such as the learning rate of AdamW.
        """
        raise NotImplementedError


class Optimizers:
    """The optimizers of a run, as one.

    Raises:
        ValueError: a method leaves a weight out, or takes one twice.
    """

    def __init__(self, weights: list[Weight], parts: list[Part]) -> None:
        self.weights = {id(weight.parameter): weight for weight in weights}
        self.parts = parts
        """The parts. The log shows the learning rate of the first."""
        self.parameters = [p for part in parts for group in part.optimizer.param_groups for p in group["params"]]
        """All parameters, in the order of the parts and their groups."""
        if sorted(map(id, self.parameters)) != sorted(self.weights):
            raise ValueError(f"the parts take {len(self.parameters)} parameters, and there are {len(self.weights)} weights")
        self._peaks = [group["lr"] for group in self._groups()]

    def _groups(self) -> Iterator[dict[str, Any]]:
        for part in self.parts:
            yield from part.optimizer.param_groups

    @property
    def lr(self) -> float:
        """The learning rate of the first group."""
        return float(next(self._groups())["lr"])

    def set_lr(self, factor: float) -> None:
        """Set every learning rate to a fraction of its peak."""
        for group, peak in zip(self._groups(), self._peaks, strict=True):
            group["lr"] = factor * peak

    def step(self) -> None:
        """Update the weights and clear their gradients."""
        for part in self.parts:
            part.optimizer.step()
            part.optimizer.zero_grad(set_to_none=True)

    def _places(self) -> Iterator[tuple[int, Part, nn.Parameter]]:
        """Yield each parameter with its number and its part."""
        owners = [(part, p) for part in self.parts for group in part.optimizer.param_groups for p in group["params"]]
        for number, (part, parameter) in enumerate(owners):
            yield number, part, parameter

    def state(self) -> dict[str, Tensor]:
        """Return the tensors of the optimizers, as NUMBER.NAME. The settings are left out, because the config has them."""
        return {
            f"{number}.{name}": torch.as_tensor(value)
            for number, part, parameter in self._places()
            for name, value in part.optimizer.state.get(parameter, {}).items()
        }

    def expected_state(self) -> dict[str, Tensor]:
        """Return tensors with the names, shapes and types that `state` may have."""
        return {
            f"{number}.{name}": torch.zeros((), device=parameter.device) if name == "step" else parameter
            for number, part, parameter in self._places()
            for name in part.state
        }

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the tensors of `state`. A parameter that never had a gradient has none."""
        for number, part, parameter in self._places():
            found = {name: tensors[key] for name in part.state if (key := f"{number}.{name}") in tensors}
            if found:
                part.optimizer.state[parameter] = found

    def placement(self) -> dict[str, list[str]]:
        """Return the names of the weights of each part. Those of several blocks are one name: ``h.*.mlp.c_fc.weight``."""
        found: dict[str, list[str]] = {}
        for _, part, parameter in self._places():
            name = re.sub(r"\.\d+\.", ".*.", self.weights[id(parameter)].name)
            if name not in found.setdefault(part.name, []):
                found[part.name].append(name)
        return found


def weights_of(trunk: Trunk, objective: Objective) -> list[Weight]:
    """Return the trainable parameters of a trunk and an objective, in this order. Tied ones occur once."""
    blocks = {id(layer) for layer in hf_internals.blocks(trunk.lm).modules()}
    found: dict[int, Weight] = {}
    for owner, module in (("trunk", trunk), ("objective", objective)):
        layers = dict(module.named_modules())
        for path, layer in layers.items():
            parent = layers[path.rpartition(".")[0]]
            for key, parameter in layer.named_parameters(recurse=False):
                if not parameter.requires_grad or id(parameter) in found:
                    continue
                name = ".".join(filter(None, (owner, path, key)))
                hidden = parameter.dim() == 2 and isinstance(layer, (nn.Linear, nn.MultiheadAttention, Conv1D))
                if hidden:
                    hidden = id(layer) in blocks if module is trunk else not _is_head(layer, objective.spec.vocabulary.size)
                out_dim = int(isinstance(layer, Conv1D))
                sizes = hf_internals.fused_outputs(parent, name, parameter.shape[out_dim]) if hidden else ()
                found[id(parameter)] = Weight(name, parameter, hidden, out_dim, sizes)
    return list(found.values())


def _is_head(layer: nn.Module, n_tokens: int) -> bool:
    """Return whether a layer of an objective maps hidden states to logits of the vocabulary."""
    return isinstance(layer, nn.Linear) and layer.out_features == n_tokens
