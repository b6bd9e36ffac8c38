"""Random-order prediction (sigma-GPT: Pannatier et al. 2024, arXiv 2404.09562): autoregressive over a shuffled target.

    input   prompt, then target tokens in a random order, each with its own slot and the slot that it predicts next
    loss    mean over slots of -log p(token of the slot | prompt, tokens of the slots before it in the order)

A slot is a place in the target. A token's own slot is its position in the trunk. Its next slot is a table of this objective,
which is added to the embeddings. At test time any order is possible: left to right, as other methods answer, or goal first.
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
"""Initial standard deviation of the table of next slots. It is GPT-2's for positions, not ``model.position_init_std``."""


class RandomOrder(Objective):
    """Prediction of the target in any order."""

    decoders = ("autoregressive", "goal_first")
    needs = ("positions",)

    def __init__(self, spec: Spec, config: ObjectiveConfig, generator: torch.Generator) -> None:
        super().__init__(spec, config, generator)
        self.next_slot = nn.Embedding(spec.prompt_length + spec.target_length, spec.width)
        nn.init.normal_(self.next_slot.weight, std=STD)

    @classmethod
    def horizon_for(cls, config: ObjectiveConfig, target_length: int) -> int:
        """Return L: a state predicts the whole target."""
        return target_length

    def loss(self, trunk: Trunk, batch: Batch, *, step: int, generator: torch.Generator) -> Loss:
        """Return the cross-entropy of the target tokens, read in an order of its own for each row."""
        slots = torch.rand(batch.target.shape, generator=generator, device=batch.target.device).argsort(1)
        tokens = batch.target.gather(1, slots)
        total = cross_entropy(self._ordered_logits(trunk, batch.prompt, tokens[:, :-1], slots, batch.shared), tokens)
        return Loss(total, {"random_order": total})

    def step_logits(self, trunk: Trunk, tokens: Int[Tensor, "B T"], cache: Any) -> Float[Tensor, "B V"]:
        """Return the logits of the slot after that of the last token: the order is from left to right."""
        n_cached = 0 if cache is None else int(cache.get_seq_length())
        places = torch.arange(n_cached, n_cached + tokens.shape[1], device=tokens.device)[None]
        embeddings = trunk.embed(tokens) + self.next_slot(places + 1)
        hidden = trunk(embeddings, positions=places, cache=cache, first=tokens.shape[1] - 1)
        return trunk.logits(hidden.normed[:, 0])

    def slot_logits(
        self, trunk: Trunk, prompt: Int[Tensor, "B P"], tokens: Int[Tensor, "B n"], slots: Int[Tensor, "B m"]
    ) -> Float[Tensor, "B V"]:
        """Return the logits of the token of the last slot, given the tokens of the other slots."""
        return self._ordered_logits(trunk, prompt, tokens, slots)[:, -1]

    def forced_logits(self, trunk: Trunk, batch: Batch) -> Float[Tensor, "B L V"]:
        """Return the logits from left to right, each from the gold tokens before it."""
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
        """Return the logits of the tokens of all slots, each given the tokens of the slots before it (m = n+1)."""
        n_prompt = prompt.shape[1]
        # Places are positions in prompt + target. Token k is at places[k] and predicts the token of places[k+1]. The last
        # slot has no token here, because nothing is predicted from it.
        places = torch.cat([torch.arange(n_prompt, device=prompt.device).expand_as(prompt), n_prompt + slots], 1)
        embeddings = trunk.embed(torch.cat([prompt, tokens], 1)) + self.next_slot(places[:, 1:])
        return trunk.logits(trunk(embeddings, positions=places[:, :-1], first=n_prompt - 1, shared=shared).normed)
