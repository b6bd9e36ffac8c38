"""Future-summary prediction, bag of words (Mahajan et al. 2025, arXiv 2510.14751): which tokens will come, without their order.

    a_t(v) = 1 if v is among x_{t+2} .. x_{t+horizon}
    loss   next token + weight * mean over v of BCE(U h_t, a_t)(v)

On a path-star graph the bag of words tells which arm is right, but not the order of its nodes. Edge lookups give the order.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pitfalls.models.trunk import Hidden, Trunk
from pitfalls.objectives.base import HorizonConfig, Spec, ahead
from pitfalls.objectives.next_token import NextToken
from pitfalls.tasks.batch import Batch


class FutureSummary(NextToken):
    """Next token, with a prediction of the set of tokens after it."""

    Config = HorizonConfig

    def __init__(self, spec: Spec, config: HorizonConfig, generator: torch.Generator) -> None:
        super().__init__(spec, config, generator)
        self.weight = config.weight
        self.head = nn.Linear(spec.width, spec.vocabulary.size)

    def auxiliary(
        self, trunk: Trunk, hidden: Hidden, batch: Batch, *, step: int, generator: torch.Generator
    ) -> dict[str, Float[Tensor, ""]]:
        """Return the weighted binary cross-entropy, a mean over vocabulary, rows and states."""
        said = self.head(hidden.normed).float()
        return {"summary": self.weight * F.binary_cross_entropy_with_logits(said, self.bag(batch.target))}

    def bag(self, target: Int[Tensor, "B L"]) -> Float[Tensor, "B L V"]:
        """Return 1 for each answer state and each token that comes after the next one and within the horizon, else 0."""
        n_rows, length = target.shape
        distance = ahead(length, target.device)
        member = ((distance >= 1) & (distance < self.horizon)).float()
        bag = torch.zeros(n_rows, length, self.spec.vocabulary.size, device=target.device)
        index = target[:, None].expand(n_rows, length, length)
        return bag.scatter_reduce(2, index, member.expand_as(index), "amax")
