"""Sequential multi-token prediction (DeepSeek-V3, arXiv 2412.19437, section 2.2), written as in arXiv 2508.19228, eq. 5-8 (TOP).

    h^k_t = block_k(W_k [norm(h^{k-1}_t); norm(E(x_{t+k}))]),   h^0 = the trunk's states
    loss    next token + weight / D * sum over k = 1 .. D of CE(h^k_t, x_{t+1+k}),   D = horizon - 1

Module k sees the prompt and the gold target tokens up to the one before its label. So it can use the Clever-Hans cheat.
``sees`` narrows its view. With ``separator`` it does not see the edge list. Its knowledge of the graph has to be in the trunk's
states from the ``=`` on. With ``answer`` it does not see the state of the ``=`` either, so each answer state has to hold it.
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
class SequentialMultiTokenConfig(HorizonConfig):
    """The parameters of `SequentialMultiToken`. The weight is the source's lambda, the weight of the mean over modules."""

    sees: str
    """Place where the modules' attention begins: prompt, separator (the ``=``) or answer. A state always sees itself."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("objective.sees", self.sees, ("prompt", "separator", "answer"))


class Module(nn.Module):
    """A module that joins a state with the embedding of the token k ahead of it, and runs one block."""

    def __init__(self, spec: Spec, generator: torch.Generator) -> None:
        super().__init__()
        self.state_norm = nn.LayerNorm(spec.width)
        self.token_norm = nn.LayerNorm(spec.width)
        self.join = nn.Linear(2 * spec.width, spec.width, bias=False)
        self.block = spec.new_block(generator)

    def forward(self, states: Float[Tensor, "B T D"], embeddings: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Return the states of the next depth."""
        return self.block(self.join(torch.cat([self.state_norm(states), self.token_norm(embeddings)], -1)))


class SequentialMultiToken(NextToken):
    """Next token, with a chain of modules that each predict one token further."""

    Config = SequentialMultiTokenConfig

    def __init__(self, spec: Spec, config: SequentialMultiTokenConfig, generator: torch.Generator) -> None:
        super().__init__(spec, config, generator)
        self.weight, self.sees, self.reads_prompt_states = config.weight, config.sees, config.sees == "prompt"
        self.chain = nn.ModuleList(Module(spec, generator) for _ in range(self.horizon - 1))

    def auxiliary(
        self, trunk: Trunk, hidden: Hidden, batch: Batch, *, step: int, generator: torch.Generator
    ) -> dict[str, Float[Tensor, ""]]:
        """Return one weighted cross-entropy per module."""
        embeddings = trunk.embed(torch.cat([batch.prompt, batch.target[:, :-1]], 1))
        states, first = hidden.pre_norm, batch.prompt.shape[1] - 1
        if not self.reads_prompt_states:
            embeddings, first = embeddings[:, first:], 0
        parts = {}
        for k, module in enumerate(self.chain, 1):
            # state t is joined with the embedding of token t+k. The last state of each depth has no such token and is dropped
            states = self._deeper(module, states[:, :-1], embeddings[:, k:])
            logits = trunk.logits(trunk.norm(states[:, first:]))
            parts[f"ahead_{k}"] = self.weight / len(self.chain) * cross_entropy(logits, batch.target[:, k:])
        return parts

    def _deeper(
        self, module: nn.Module, states: Float[Tensor, "B T D"], embeddings: Float[Tensor, "B T D"]
    ) -> Float[Tensor, "B T D"]:
        """Return the states of the next depth. With ``sees: answer`` the state of the ``=`` is processed separately."""
        if self.sees != "answer" or states.shape[1] == 1:
            return module(states, embeddings)
        return torch.cat([module(states[:, part], embeddings[:, part]) for part in (slice(0, 1), slice(1, None))], 1)
