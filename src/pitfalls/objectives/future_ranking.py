"""Ranking into the future (Frydenlund 2025, on the path-star task, without official code): sooner tokens rank above later ones.

    z_t    the trunk's logits,   m = margin
    order  mean over pairs j < k of future tokens of max(0, m - (z_t[x_j] - z_t[x_k]))
    arm    mean over future tokens j and nodes v of other arms of max(0, m - (z_t[x_j] - z_t[v]))
    loss   next token + weight * (order + arm)

The source takes sums. Here means are taken, so that the weight does not depend on the graph's size.
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
    """The parameters of `FutureRanking`."""

    weight: float
    """Weight of both rankings."""
    margin: float
    """Difference of logits from which on a pair in the right order has no loss."""
    above_other_arms: bool
    """Whether the target's tokens are also ranked above the other nodes of the prompt."""

    def __post_init__(self) -> None:
        check_range("objective.weight", self.weight, 0)
        check_range("objective.margin", self.margin, 0, open_low=True)


class FutureRanking(NextToken):
    """Next token, with a ranking of the future tokens by the same logits."""

    Config = FutureRankingConfig

    def __init__(self, spec: Spec, config: FutureRankingConfig, generator: torch.Generator) -> None:
        super().__init__(spec, config, generator)
        self.weight, self.margin, self.above_other_arms = config.weight, config.margin, config.above_other_arms

    @classmethod
    def horizon_for(cls, config: ObjectiveConfig, target_length: int) -> int:
        """Return L: a state predicts the whole target."""
        return target_length

    def auxiliary(
        self, trunk: Trunk, hidden: Hidden, batch: Batch, *, step: int, generator: torch.Generator
    ) -> dict[str, Float[Tensor, ""]]:
        """Return the weighted hinge losses of the order and of the arm."""
        logits = trunk.logits(hidden.normed)[..., : self.spec.vocabulary.size].float()
        length = batch.target.shape[1]
        distance = ahead(length, logits.device)
        future = distance >= 0  # [state, token]: is the token still in the state's future?
        of_target = logits.gather(2, batch.target[:, None].expand(-1, length, -1))  # [row, state, token]
        # [state, sooner token, later token]: both are in the state's future, and in this order
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
        return cost.sum() / pairs.sum().clamp(min=1)  # a graph of one arm has no pairs: the loss is 0

    def _other_nodes(self, batch: Batch) -> Bool[Tensor, "B V"]:
        """Return which node values are in the prompt and not in the target."""
        vocabulary = self.spec.vocabulary
        other = torch.zeros(len(batch.prompt), vocabulary.size, dtype=torch.bool, device=batch.prompt.device)
        other.scatter_(1, batch.prompt, True).scatter_(1, batch.target, False)
        other[:, vocabulary.n_values :] = False
        return other
