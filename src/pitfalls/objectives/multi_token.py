"""Multi-token prediction with parallel heads (Gloeckle et al. 2024, arXiv 2404.19737, section 2).

    loss   next token + weight * sum over k = 1 .. horizon-1 of CE(head_k(z_t), x_{t+1+k})

Head k is one more causal block. The final norm and the unembedding are shared. With ``heads: beside_last``, z_t is the state that
the trunk's last block reads. That block is then the head of the next token, and every token is predicted from the same state
through the same number of blocks. With ``on_top``, z_t is the trunk's state before its final norm, and the next token has one
block less than the others. The heads see no target token after t, so they have to plan.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pitfalls.models.trunk import Hidden, Trunk
from pitfalls.objectives.base import HorizonConfig, Spec, cross_entropy
from pitfalls.objectives.next_token import NextToken
from pitfalls.schemas import check_choice
from pitfalls.tasks.batch import Batch


@dataclass(kw_only=True)
class MultiTokenConfig(HorizonConfig):
    """The parameters of `MultiToken`."""

    heads: str
    """Place of the heads' blocks: beside_last (beside the trunk's last block) or on_top (after it)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("objective.heads", self.heads, ("beside_last", "on_top"))


class MultiToken(NextToken):
    """Next token, with one head for each of the tokens after it."""

    Config = MultiTokenConfig
    decoders = ("autoregressive", "blockwise", "self_speculative", "tree")

    def __init__(self, spec: Spec, config: MultiTokenConfig, generator: torch.Generator) -> None:
        super().__init__(spec, config, generator)
        self.weight, self.reads_before_last_block = config.weight, config.heads == "beside_last"
        self.reads_prompt_states = not self.reads_before_last_block
        self.heads = nn.ModuleList(spec.new_block(generator) for _ in range(self.horizon - 1))

    def auxiliary(
        self, trunk: Trunk, hidden: Hidden, batch: Batch, *, step: int, generator: torch.Generator
    ) -> dict[str, Float[Tensor, ""]]:
        """Return one weighted cross-entropy per head, over the answer states that have a token so far ahead."""
        read, first, parts = self._read(hidden), batch.prompt.shape[1] - 1, {}
        for k, head in enumerate(self.heads, 1):
            states = head(read[:, : read.shape[1] - k], first)  # the last k states have no token so far ahead
            parts[f"ahead_{k}"] = self.weight * cross_entropy(trunk.logits(trunk.norm(states)), batch.target[:, k:])
        return parts

    def draft_logits(self, trunk: Trunk, hidden: Hidden) -> Float[Tensor, "B k V"]:
        """Return the logits of the next token and, from each head, of the tokens after it."""
        read = self._read(hidden)
        last = read.shape[1] - 1
        states = [hidden.normed[:, -1], *(trunk.norm(head(read, last))[:, 0] for head in self.heads)]
        return trunk.logits(torch.stack(states, 1))

    def _read(self, hidden: Hidden) -> Float[Tensor, "B T D"]:
        """Return the states that the heads' blocks read."""
        if not self.reads_before_last_block:
            return hidden.pre_norm
        assert hidden.before_last_block is not None
        return hidden.before_last_block
