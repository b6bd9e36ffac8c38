"""The first hop in isolation (Bachmann & Nagarajan 2024, section 4.3 and appendix: the indecipherable token).

    input   prompt, start        loss   -log p(target[1] | prompt, start)

This is next-token training on the only token that needs planning. No other target token is supervised. So nothing
encourages the cheat, but nothing supplies the intermediate steps either.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pitfalls.models.trunk import Trunk
from pitfalls.objectives.base import Loss, Objective, cross_entropy
from pitfalls.runs.counts import FIRST_HOP
from pitfalls.tasks.batch import Batch


class FirstHop(Objective):
    """Prediction of target[1] and nothing else."""

    decoders = ("autoregressive",)

    def supervised(self) -> tuple[int, ...]:
        """Return the first hop alone: the other positions of an answer are noise."""
        return (FIRST_HOP,)

    def loss(self, trunk: Trunk, batch: Batch, *, step: int, generator: torch.Generator) -> Loss:
        """Return the cross-entropy of the first hop."""
        read = torch.cat([batch.prompt, batch.target[:, :FIRST_HOP]], 1)
        hidden = trunk(read, first=batch.prompt.shape[1], shared=batch.shared)
        total = cross_entropy(trunk.logits(hidden.normed), batch.target[:, FIRST_HOP : FIRST_HOP + 1])
        return Loss(total, {"first_hop": total})

    def step_logits(self, trunk: Trunk, tokens: Int[Tensor, "B T"], cache: Any) -> Float[Tensor, "B V"]:
        """Return the trunk's logits. The first token is never trained, so its logits select the start of the prompt."""
        logits = trunk.logits(trunk(tokens, cache=cache, first=tokens.shape[1] - 1).normed[:, 0])
        if tokens.shape[1] != self.spec.prompt_length:
            return logits
        return torch.full_like(logits, torch.finfo(logits.dtype).min).scatter(1, tokens[:, -3:-2], 0.0)
