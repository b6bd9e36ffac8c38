"""Next-token prediction with teacher forcing (Bachmann & Nagarajan 2024, section 3.1, eq. 2).

    input   prompt, target[:-1]         loss   mean over i of -log p(target[i] | prompt, target[:i])

The prompt contributes no loss. Also the base class of "next-token loss plus something on the same hidden states":
override `auxiliary`. Of "next-token loss on other inputs than the gold ones": override `inputs`.
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
    """Whether `auxiliary` reads states before those that predict the target; they cost a quarter more time."""

    reads_before_last_block = False
    """Whether `auxiliary` reads what the trunk's last block reads."""

    def loss(self, trunk: Trunk, batch: Batch, *, step: int, generator: torch.Generator) -> Loss:
        """Cross-entropy of the target tokens, plus what `auxiliary` adds."""
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
        """What the target tokens are predicted from in training: the gold ones, all but the last (M = L-1)."""
        return batch.target[:, :-1]

    def auxiliary(
        self, trunk: Trunk, hidden: Hidden, batch: Batch, *, step: int, generator: torch.Generator
    ) -> dict[str, Float[Tensor, ""]]:
        """Further losses on the hidden states of the teacher-forced pass, by name, weighted; by default none.

        Args:
            trunk: the model.
            hidden: [B,L,D], the states that predict the target; or with ``reads_prompt_states`` all, [B,P+L-1,D]. With
                ``reads_before_last_block`` also what the last block reads, [B,P+L-1,D].
            batch: what `view` made of it.
            step: optimizer steps taken so far.
            generator: the objective's random stream for this step.
        """
        return {}

    def step_logits(self, trunk: Trunk, tokens: Int[Tensor, "B T"], cache: Any) -> Float[Tensor, "B V"]:
        """The trunk's own next-token logits."""
        return trunk.logits(trunk(tokens, cache=cache, first=tokens.shape[1] - 1).normed[:, 0])

    def forced_logits(self, trunk: Trunk, batch: Batch) -> Float[Tensor, "B L V"]:
        """The logits that the loss reads."""
        read = torch.cat([batch.prompt, batch.target[:, :-1]], 1)
        return trunk.logits(trunk(read, first=batch.prompt.shape[1] - 1, shared=batch.shared).normed)
