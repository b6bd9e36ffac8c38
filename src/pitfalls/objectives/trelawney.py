"""Lookahead tokens in the data (Trelawney: Thankaraj et al. 2025, arXiv 2504.11336): a span of the future, before it happens.

    input   with probability `rate` per batch: prompt, <T>, z, </T>, target;   z = target[k:k+w], k and w drawn per batch
    loss    next token on all of it but the <T>

The architecture stays. The model answers as any other does, or is made to write a z of its own first (decoding `lookahead`).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from pitfalls.models.trunk import Trunk
from pitfalls.objectives.base import Loss, Spec, cross_entropy
from pitfalls.objectives.next_token import NextToken
from pitfalls.schemas import ConfigError, ObjectiveConfig, check_range
from pitfalls.tasks.batch import Batch


@dataclass(kw_only=True)
class TrelawneyConfig(ObjectiveConfig):
    """Parameters of `Trelawney`."""

    rate: float
    """Probability with which a batch gets a lookahead; 0.5 in the source."""

    def __post_init__(self) -> None:
        check_range("objective.rate", self.rate, 0, 1)


class Trelawney(NextToken):
    """Next token on targets that may begin with a piece of their own future."""

    Config = TrelawneyConfig
    decoders = ("autoregressive", "lookahead")

    def __init__(self, spec: Spec, config: TrelawneyConfig, generator: torch.Generator) -> None:
        super().__init__(spec, config, generator)
        if spec.target_length < 3:
            raise ConfigError(f"task.path_length={spec.target_length}: objective=trelawney needs at least 3")
        self.horizon = spec.target_length
        self.rate = config.rate

    def loss(self, trunk: Trunk, batch: Batch, *, step: int, generator: torch.Generator) -> Loss:
        """Next token, on this batch with or without a lookahead."""
        device, length = batch.target.device, batch.target.shape[1]
        if torch.rand((), generator=generator, device=device) >= self.rate:
            return super().loss(trunk, batch, step=step, generator=generator)
        k = int(torch.randint(1, length - 1, (), generator=generator, device=device))
        w = int(torch.randint(1, length - k + 1, (), generator=generator, device=device))
        written = torch.cat([batch.target[:, k : k + w], self._symbol(batch, "</T>"), batch.target], 1)
        sequence = torch.cat([batch.prompt, self._symbol(batch, "<T>"), written[:, :-1]], 1)
        total = cross_entropy(trunk.logits(trunk(sequence, first=batch.prompt.shape[1]).normed), written)
        return Loss(total, {"lookahead": total})

    def _symbol(self, batch: Batch, symbol: str) -> Int[Tensor, "B 1"]:
        return batch.target.new_full((len(batch.target), 1), self.spec.vocabulary.id(symbol))
