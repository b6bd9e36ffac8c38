"""Multi-token prediction with parallel heads (Gloeckle et al. 2024, arXiv 2404.19737, section 2).

    loss   next token + weight * sum over k = 1 .. horizon-1 of CE(head_k(z_t), x_{t+1+k})

z_t is the trunk's state before its final norm; head k is one more causal block on it, and final norm and unembedding are
shared. The heads see no target token after t: what they predict has to be planned.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pitfalls.models.trunk import Hidden, Trunk
from pitfalls.objectives.base import HorizonConfig, Spec, answer_states, cross_entropy
from pitfalls.objectives.next_token import NextToken
from pitfalls.tasks.batch import Batch


class MultiToken(NextToken):
    """Next token, and a head for each of the tokens after it."""

    Config = HorizonConfig
    decoders = ("autoregressive", "blockwise", "self_speculative", "tree")
    reads_prompt_states = True

    def __init__(self, spec: Spec, config: HorizonConfig, generator: torch.Generator) -> None:
        super().__init__(spec, config, generator)
        self.weight = config.weight
        self.heads = nn.ModuleList(spec.new_block(generator) for _ in range(self.horizon - 1))

    def auxiliary(
        self, trunk: Trunk, hidden: Hidden, batch: Batch, *, step: int, generator: torch.Generator
    ) -> dict[str, Float[Tensor, ""]]:
        """A cross-entropy per head, over the answer states that have a token so far ahead."""
        parts = {}
        for k, head in enumerate(self.heads, 1):
            states = answer_states(trunk.norm(head(hidden.pre_norm)), batch)[:, :-k]
            parts[f"ahead_{k}"] = self.weight * cross_entropy(trunk.logits(states), batch.target[:, k:])
        return parts

    def draft_logits(self, trunk: Trunk, hidden: Hidden) -> Float[Tensor, "B k V"]:
        """The next token, and what each head says about the ones after it."""
        states = [hidden.normed[:, -1], *(trunk.norm(head(hidden.pre_norm)[:, -1]) for head in self.heads)]
        return trunk.logits(torch.stack(states, 1))

