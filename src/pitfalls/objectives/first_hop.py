"""The first hop in isolation (Bachmann & Nagarajan 2024, section 4.3 and appendix: the indecipherable token).

    input   prompt, start        loss   -log p(target[1] | prompt, start)

Next-token training stripped of everything but the one token that needs planning. No other target token is supervised,
so nothing invites the cheat, and nothing supplies the intermediate steps either.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pitfalls.models.trunk import Trunk
from pitfalls.objectives.base import Loss, Objective, cross_entropy
from pitfalls.tasks.batch import Batch

FIRST_HOP = 1


class FirstHop(Objective):
    """Predict target[1] and nothing else."""

    decoders = ("autoregressive",)

    def supervised(self) -> tuple[int, ...]:
        """The first hop alone: other positions of an answer are noise."""
        return (FIRST_HOP,)

    def loss(self, trunk: Trunk, batch: Batch, *, step: int, generator: torch.Generator) -> Loss:
        """Cross-entropy of the first hop."""
        read = torch.cat([batch.prompt, batch.target[:, :FIRST_HOP]], 1)
        hidden = trunk(read, first=batch.prompt.shape[1], shared=batch.shared)
        total = cross_entropy(trunk.logits(hidden.normed), batch.target[:, FIRST_HOP : FIRST_HOP + 1])
        return Loss(total, {"first_hop": total})

    def step_logits(self, trunk: Trunk, tokens: Int[Tensor, "B T"], cache: Any) -> Float[Tensor, "B V"]:
        """The start is copied from the prompt (it was never a target here); every further token is the trunk's."""
        logits = trunk.logits(trunk(tokens, cache=cache, first=tokens.shape[1] - 1).normed[:, 0])
        if tokens.shape[1] != self.spec.prompt_length:
            return logits
        return torch.full_like(logits, torch.finfo(logits.dtype).min).scatter(1, tokens[:, -3:-2], 0.0)
