"""Masked inputs (Frydenlund 2025, on the path-star task): next token from gold tokens, some of which are hidden.

    input   prompt, target[:-1] with each token replaced with probability `rate`       loss   that of next token

If the token before is hidden, the next one cannot be read off it. So the cheat does not always work.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from pitfalls.models.trunk import Trunk
from pitfalls.objectives.base import Spec
from pitfalls.objectives.next_token import NextToken
from pitfalls.schemas import ObjectiveConfig, check_choice, check_range
from pitfalls.tasks.batch import Batch


@dataclass(kw_only=True)
class MaskedInputConfig(ObjectiveConfig):
    """The parameters of `MaskedInput`."""

    rate: float
    """Probability with which an input token is replaced."""
    by: str
    """Replacement of a hidden token: mask, or random (a uniformly drawn node value)."""

    def __post_init__(self) -> None:
        check_range("objective.rate", self.rate, 0, 1)
        check_choice("objective.by", self.by, ("mask", "random"))


class MaskedInput(NextToken):
    """Next token from inputs of which some are replaced."""

    Config = MaskedInputConfig

    def __init__(self, spec: Spec, config: MaskedInputConfig, generator: torch.Generator) -> None:
        super().__init__(spec, config, generator)
        self.rate, self.by = config.rate, config.by

    def inputs(self, trunk: Trunk, batch: Batch, *, step: int, generator: torch.Generator) -> Int[Tensor, "B M"]:
        """Return the gold tokens, some of them replaced."""
        gold, vocabulary = batch.target[:, :-1], self.spec.vocabulary
        hidden = torch.rand(gold.shape, generator=generator, device=gold.device) < self.rate
        if self.by == "mask":
            return gold.masked_fill(hidden, vocabulary.id("<mask>"))
        other = torch.randint(vocabulary.n_values, gold.shape, generator=generator, device=gold.device)
        return torch.where(hidden, other, gold)
