"""Ranking into the future (Frydenlund 2025, the path-star task; no official code): sooner tokens above later ones.

    z_t    the trunk's logits,   m = margin
    order  mean over pairs j < k of future tokens of max(0, m - (z_t[x_j] - z_t[x_k]))
    arm    mean over future tokens j and nodes v of other arms of max(0, m - (z_t[x_j] - z_t[v]))
    loss   next token + weight * (order + arm)

The source sums where this takes means, so that the weight does not depend on the graph.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from pitfalls.models.trunk import Hidden, Trunk
from pitfalls.objectives.base import Spec, ahead
from pitfalls.objectives.next_token import NextToken
from pitfalls.schemas import ObjectiveConfig, check_range
from pitfalls.tasks.batch import Batch


@dataclass(kw_only=True)
class FutureRankingConfig(ObjectiveConfig):
    """Parameters of `FutureRanking`."""

    weight: float
    margin: float
    above_other_arms: bool
    """Whether the target's tokens are ranked above the other nodes of the prompt as well."""

    def __post_init__(self) -> None:
        check_range("objective.weight", self.weight, 0)
        check_range("objective.margin", self.margin, 0, open_low=True)


class FutureRanking(NextToken):
    """Next token, and a ranking of the tokens to come by the same logits."""

    Config = FutureRankingConfig

    def __init__(self, spec: Spec, config: FutureRankingConfig, generator: torch.Generator) -> None:
        super().__init__(spec, config, generator)
        self.weight, self.margin, self.above_other_arms = config.weight, config.margin, config.above_other_arms

    @classmethod
    def horizon_for(cls, config: ObjectiveConfig, target_length: int) -> int:
        """The whole target."""
        return target_length

    def auxiliary(
        self, trunk: Trunk, hidden: Hidden, batch: Batch, *, step: int, generator: torch.Generator
    ) -> dict[str, Float[Tensor, ""]]:
        """The hinge losses of the order, and of the arm."""
        logits = trunk.logits(hidden.normed)[..., : self.spec.vocabulary.size].float()
        length = batch.target.shape[1]
        distance = ahead(length, logits.device)
        future = distance >= 0  # [state, token]
        of_target = logits.gather(2, batch.target[:, None].expand(-1, length, -1))
        pairs = future[:, :, None] & future[:, None] & (distance[:, :, None] < distance[:, None])
        parts = {"order": self.weight * self._hinge(of_target, of_target, pairs.expand(len(logits), -1, -1, -1))}
        if self.above_other_arms:
            pairs = future[None, :, :, None] & self._other_nodes(batch)[:, None, None]
            parts["arm"] = self.weight * self._hinge(of_target, logits, pairs)
        return parts

    def _hinge(
        self, above: Float[Tensor, "B L n"], below: Float[Tensor, "B L m"], pairs: Bool[Tensor, "B L n m"]
    ) -> Float[Tensor, ""]:
        cost = F.relu(self.margin - (above[..., :, None] - below[..., None, :])) * pairs
        return cost.sum() / pairs.sum().clamp(min=1)  # of no pairs, where there is one arm, nothing

    def _other_nodes(self, batch: Batch) -> Bool[Tensor, "B V"]:
        """Node values of the prompt that are not of the target."""
        vocabulary = self.spec.vocabulary
        other = torch.zeros(len(batch.prompt), vocabulary.size, dtype=torch.bool, device=batch.prompt.device)
        other.scatter_(1, batch.prompt, True).scatter_(1, batch.target, False)
        other[:, vocabulary.n_values :] = False
        return other
