"""The belief-state transformer (Hu et al. 2025, arXiv 2410.23506): read from both ends, predict the next and the previous token.

    f_i    the trunk's state after the prompt and i target tokens
    b_j    the state of a second, backward trunk after the end token and target[j:] in reverse (token embeddings are shared)
    loss   mean over 0 <= i < j <= L of half of CE(target[i] | f_i, b_j) + half of CE(target[j-1] | f_i, b_j)

At test time the suffix is empty: the next token is read from f_i and b_L, the backward state of the end token alone. Prefixes
begin at the ``=``, as in the source's star-graph setting, so the backward trunk never reads the prompt.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pitfalls.models.trunk import Trunk
from pitfalls.objectives.base import Loss, Objective, Spec, cross_entropy
from pitfalls.schemas import ObjectiveConfig, check_range
from pitfalls.tasks.batch import Batch


@dataclass(kw_only=True)
class BeliefStateConfig(ObjectiveConfig):
    """The parameters of `BeliefState`."""

    head_ratio: float
    """Hidden width of the head's gated MLP, as a multiple of its input width 2D. The source has 8/3."""

    def __post_init__(self) -> None:
        check_range("objective.head_ratio", self.head_ratio, 0, open_low=True)


class Head(nn.Module):
    """A module that joins a prefix state and a suffix state: a residual SwiGLU layer, then a norm."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(2 * width, hidden, bias=False)
        self.up = nn.Linear(2 * width, hidden, bias=False)
        self.down = nn.Linear(hidden, 2 * width, bias=False)
        self.norm = nn.LayerNorm(2 * width)

    def forward(
        self, prefix: Float[Tensor, "B n D"], suffix: Float[Tensor, "B n D"]
    ) -> tuple[Float[Tensor, "B n D"], Float[Tensor, "B n D"]]:
        """Return the states from which the next and the previous token are read."""
        both = torch.cat([prefix, suffix], -1)
        after, before = self.norm(both + self.down(F.silu(self.gate(both)) * self.up(both))).chunk(2, -1)
        return after, before


class BeliefState(Objective):
    """Prediction of the next and the previous token from a forward and a backward trunk."""

    Config = BeliefStateConfig
    decoders = ("autoregressive",)

    def __init__(self, spec: Spec, config: BeliefStateConfig, generator: torch.Generator) -> None:
        super().__init__(spec, config, generator)
        self.backward_trunk = spec.new_encoder(generator)
        self.head = Head(spec.width, int(config.head_ratio * 2 * spec.width))

    @classmethod
    def horizon_for(cls, config: ObjectiveConfig, target_length: int) -> int:
        """Return L: a state predicts the whole target."""
        return target_length

    def loss(self, trunk: Trunk, batch: Batch, *, step: int, generator: torch.Generator) -> Loss:
        """Return both cross-entropies over all pairs of a prefix and a suffix with at least one token between them."""
        length = batch.target.shape[1]
        prefix, suffix = self._prefix_states(trunk, batch), self._suffix_states(trunk, batch.target)
        i, j = torch.combinations(torch.arange(length + 1, device=batch.target.device)).unbind(1)
        after, before = self.head(prefix[:, i], suffix[:, j])
        parts = {
            "next": 0.5 * cross_entropy(trunk.logits(after), batch.target[:, i]),
            "previous": 0.5 * cross_entropy(trunk.logits(before), batch.target[:, j - 1]),
        }
        return Loss(torch.stack(list(parts.values())).sum(), parts)

    def step_logits(self, trunk: Trunk, tokens: Int[Tensor, "B T"], cache: Any) -> Float[Tensor, "B V"]:
        """Return the logits of the next token, with an empty suffix."""
        return self._next(trunk, trunk(tokens, cache=cache, first=tokens.shape[1] - 1).normed)[:, 0]

    def forced_logits(self, trunk: Trunk, batch: Batch) -> Float[Tensor, "B L V"]:
        """Return the logits of each token after the gold tokens before it, with an empty suffix."""
        return self._next(trunk, self._prefix_states(trunk, batch))

    def _next(self, trunk: Trunk, prefix: Float[Tensor, "B n D"]) -> Float[Tensor, "B n V"]:
        nothing = self._suffix_states(trunk, prefix.new_empty(1, 0, dtype=torch.long))
        return trunk.logits(self.head(prefix, nothing.expand_as(prefix))[0])

    @staticmethod
    def _prefix_states(trunk: Trunk, batch: Batch) -> Float[Tensor, "B L D"]:
        read = torch.cat([batch.prompt, batch.target[:, :-1]], 1)
        return trunk(read, first=batch.prompt.shape[1] - 1, shared=batch.shared).normed

    def _suffix_states(self, trunk: Trunk, target: Int[Tensor, "B n"]) -> Float[Tensor, "B m D"]:
        """Return the backward states b_0 .. b_n, so m = n+1. State j has read the end token and target[j:]."""
        end = target.new_full((len(target), 1), self.spec.vocabulary.id("<eos>"))
        backwards = torch.cat([target, end], 1).flip(1)
        return self.backward_trunk(trunk.embed(backwards)).normed.flip(1)
