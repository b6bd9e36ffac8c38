"""Random-order prediction (sigma-GPT: Pannatier et al. 2024, arXiv 2404.09562): autoregressive over a shuffled target.

    input   prompt, then target tokens in a random order; each position tells its own slot and the slot that it predicts next
    loss    mean over slots of -log p(token of the slot | prompt, tokens of the slots before it in the order)

Own slots are the trunk's positions, next slots a table of this objective's, added to the embeddings. At test time any order
can be asked for: left to right, as everybody answers, or from the goal.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pitfalls.models.trunk import Trunk
from pitfalls.objectives.base import Loss, Objective, Spec, cross_entropy
from pitfalls.schemas import ObjectiveConfig
from pitfalls.tasks.batch import Batch, Shared

STD = 0.02
"""Of the table of next slots: GPT-2's for positions, whatever ``model.position_init_std`` is."""


class RandomOrder(Objective):
    """Predict the target in any order."""

    decoders = ("autoregressive", "goal_first")
    needs = ("positions",)

    def __init__(self, spec: Spec, config: ObjectiveConfig, generator: torch.Generator) -> None:
        super().__init__(spec, config, generator)
        self.next_slot = nn.Embedding(spec.prompt_length + spec.target_length, spec.width)
        nn.init.normal_(self.next_slot.weight, std=STD)

    @classmethod
    def horizon_for(cls, config: ObjectiveConfig, target_length: int) -> int:
        """The whole target."""
        return target_length

    def loss(self, trunk: Trunk, batch: Batch, *, step: int, generator: torch.Generator) -> Loss:
        """Cross-entropy in an order of its own for each row."""
        slots = torch.rand(batch.target.shape, generator=generator, device=batch.target.device).argsort(1)
        tokens = batch.target.gather(1, slots)
        total = cross_entropy(self._ordered_logits(trunk, batch.prompt, tokens[:, :-1], slots, batch.shared), tokens)
        return Loss(total, {"random_order": total})

    def step_logits(self, trunk: Trunk, tokens: Int[Tensor, "B T"], cache: Any) -> Float[Tensor, "B V"]:
        """Left to right: the slot after the last token's."""
        n_cached = 0 if cache is None else int(cache.get_seq_length())
        places = torch.arange(n_cached, n_cached + tokens.shape[1], device=tokens.device)[None]
        embeddings = trunk.embed(tokens) + self.next_slot(places + 1)
        hidden = trunk(embeddings, positions=places, cache=cache, first=tokens.shape[1] - 1)
        return trunk.logits(hidden.normed[:, 0])

    def slot_logits(
        self, trunk: Trunk, prompt: Int[Tensor, "B P"], tokens: Int[Tensor, "B n"], slots: Int[Tensor, "B m"]
    ) -> Float[Tensor, "B V"]:
        """The token of the last slot, given those of the others."""
        return self._ordered_logits(trunk, prompt, tokens, slots)[:, -1]

    def forced_logits(self, trunk: Trunk, batch: Batch) -> Float[Tensor, "B L V"]:
        """Left to right, from the gold tokens before."""
        slots = torch.arange(batch.target.shape[1], device=batch.target.device).expand_as(batch.target)
        return self._ordered_logits(trunk, batch.prompt, batch.target[:, :-1], slots)

    def _ordered_logits(
        self,
        trunk: Trunk,
        prompt: Int[Tensor, "B P"],
        tokens: Int[Tensor, "B n"],
        slots: Int[Tensor, "B m"],
        shared: Shared | None = None,
    ) -> Float[Tensor, "B m V"]:
        """Logits of the token of every slot in turn, m = n+1."""
        n_prompt = prompt.shape[1]
        places = torch.cat([torch.arange(n_prompt, device=prompt.device).expand_as(prompt), n_prompt + slots], 1)
        embeddings = trunk.embed(torch.cat([prompt, tokens], 1)) + self.next_slot(places[:, 1:])
        return trunk.logits(trunk(embeddings, positions=places[:, :-1], first=n_prompt - 1, shared=shared).normed)
