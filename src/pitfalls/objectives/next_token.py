"""Next-token prediction with teacher forcing (Bachmann & Nagarajan 2024, section 3.1, eq. 2).

    input   prompt, target[:-1]         loss   mean over i of -log p(target[i] | prompt, target[:i])

The prompt contributes no loss. This is also the base class of two kinds of objectives. Those that add a loss on the same
hidden states override `auxiliary`. Those that read other inputs than the gold tokens override `inputs`.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pitfalls.models.trunk import Hidden, Trunk
from pitfalls.objectives.base import Loss, Objective, answer_states, cross_entropy
from pitfalls.tasks.batch import Batch


class NextToken(Objective):
    """Teacher-forced next-token prediction."""

    decoders: tuple[str, ...] = ("autoregressive",)

    reads_prompt_states = False
    """Whether `auxiliary` reads states of the prompt before the ``=``. These cost a quarter more time."""

    reads_before_last_block = False
    """Whether `auxiliary` reads the input of the trunk's last block."""

    def loss(self, trunk: Trunk, batch: Batch, *, step: int, generator: torch.Generator) -> Loss:
        """Return the cross-entropy of the target tokens plus the losses of `auxiliary`."""
        read = torch.cat([batch.prompt, self.inputs(trunk, batch, step=step, generator=generator)], 1)
        first = 0 if self.reads_prompt_states else batch.prompt.shape[1] - 1
        hidden = trunk(read, first=first, shared=batch.shared, before_last_block=self.reads_before_last_block)
        logits = trunk.logits(answer_states(hidden.normed, batch) if self.reads_prompt_states else hidden.normed)
        parts = {
            "next_token": cross_entropy(logits, batch.target),
            **self.auxiliary(trunk, hidden, batch, step=step, generator=generator),
        }
        return Loss(torch.stack(list(parts.values())).sum(), parts)

    def inputs(self, trunk: Trunk, batch: Batch, *, step: int, generator: torch.Generator) -> Int[Tensor, "B M"]:
        """Return the tokens after the prompt that training reads: by default all gold tokens but the last (M = L-1)."""
        return batch.target[:, :-1]

    def auxiliary(
        self, trunk: Trunk, hidden: Hidden, batch: Batch, *, step: int, generator: torch.Generator
    ) -> dict[str, Float[Tensor, ""]]:
        """Return further losses on the hidden states of the teacher-forced pass, weighted, by name. By default there are none.

        Args:
            trunk: the model.
            hidden: the states that predict the target, [B,L,D], or all states, [B,P+L-1,D], with ``reads_prompt_states``. With
                ``reads_before_last_block`` it also holds the input of the last block, [B,P+L-1,D].
            batch: the batch after `view`.
            step: optimizer steps taken so far.
            generator: the objective's random stream for this step.
        """
        return {}

    def step_logits(self, trunk: Trunk, tokens: Int[Tensor, "B T"], cache: Any) -> Float[Tensor, "B V"]:
        """Return the trunk's own next-token logits."""
        return trunk.logits(trunk(tokens, cache=cache, first=tokens.shape[1] - 1).normed[:, 0])

    def forced_logits(self, trunk: Trunk, batch: Batch) -> Float[Tensor, "B L V"]:
        """Return the logits of each target token after the gold tokens before it."""
        read = torch.cat([batch.prompt, batch.target[:, :-1]], 1)
        return trunk.logits(trunk(read, first=batch.prompt.shape[1] - 1, shared=batch.shared).normed)
