"""Lookahead tokens in the data (Trelawney: Thankaraj et al. 2025, arXiv 2504.11336): a span of the future before the target.

    input   with probability ``rate`` per micro-batch: prompt, <T>, z, </T>, target;   z = target[k:k+w], 1 <= k <= L-2
    loss    next token on everything after the prompt but the <T>

The architecture stays the same. The model answers as usual, or it first writes a z of its own (decoder ``lookahead``).
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
from pitfalls.tasks.path_star import PathStar


@dataclass(kw_only=True)
class TrelawneyConfig(ObjectiveConfig):
    """The parameters of `Trelawney`."""

    rate: float
    """Probability that a micro-batch gets a lookahead. The source has 0.5 and draws for each sample."""

    def __post_init__(self) -> None:
        check_range("objective.rate", self.rate, 0, 1)


class Trelawney(NextToken):
    """Next-token prediction on targets that may begin with a span of their own future."""

    Config = TrelawneyConfig
    decoders = ("autoregressive", "lookahead")

    def __init__(self, spec: Spec, config: TrelawneyConfig, generator: torch.Generator) -> None:
        super().__init__(spec, config, generator)
        self.rate = config.rate

    @classmethod
    def check(cls, config: ObjectiveConfig, task: PathStar) -> None:
        """Raise an error for paths of two nodes, which have no token to look ahead at.

        Raises:
            ConfigError: the target has fewer than 3 tokens.
        """
        if task.target_length < 3:
            raise ConfigError(f"task.path_length={task.path_length}: objective=trelawney needs at least 3")

    @classmethod
    def horizon_for(cls, config: ObjectiveConfig, target_length: int) -> int:
        """Return L: a lookahead may reach to the end of the target."""
        return target_length

    def loss(self, trunk: Trunk, batch: Batch, *, step: int, generator: torch.Generator) -> Loss:
        """Return the next-token loss of the batch, with or without a lookahead."""
        device, length = batch.target.device, batch.target.shape[1]
        nothing = torch.zeros((), device=device)  # micro-batches with and without a lookahead have the same terms
        if torch.rand((), generator=generator, device=device) >= self.rate:
            total = super().loss(trunk, batch, step=step, generator=generator).total
            return Loss(total, {"next_token": total, "lookahead": nothing})
        k = int(torch.randint(1, length - 1, (), generator=generator, device=device))
        w = int(torch.randint(1, length - k + 1, (), generator=generator, device=device))
        written = torch.cat([batch.target[:, k : k + w], self._symbol(batch, "</T>"), batch.target], 1)
        sequence = torch.cat([batch.prompt, self._symbol(batch, "<T>"), written[:, :-1]], 1)
        hidden = trunk(sequence, first=batch.prompt.shape[1], shared=batch.shared)
        total = cross_entropy(trunk.logits(hidden.normed), written)
        return Loss(total, {"next_token": nothing, "lookahead": total})

    def _symbol(self, batch: Batch, symbol: str) -> Int[Tensor, "B 1"]:
        return batch.target.new_full((len(batch.target), 1), self.spec.vocabulary.id(symbol))
