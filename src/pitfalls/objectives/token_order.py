"""Token-order prediction (Zuhri et al. 2025, arXiv 2508.19228, section 3): rank the vocabulary by how soon a token comes.

    y_t(v) = -(distance from t to the next v)/temperature, -inf beyond the window
    loss   next token + weight * CE(softmax(y_t), softmax(U h_t))          (ListNet)

U is one more unembedding on the same states. Softmax ignores shifts, so a token k places after the next one has a weight
proportional to exp(-k/temperature).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pitfalls.models.trunk import Hidden, Trunk
from pitfalls.objectives.base import HorizonConfig, Spec, ahead
from pitfalls.objectives.next_token import NextToken
from pitfalls.schemas import check_range
from pitfalls.tasks.batch import Batch


@dataclass(kw_only=True)
class TokenOrderConfig(HorizonConfig):
    """The parameters of `TokenOrder`. The horizon is the source's window."""

    temperature: float
    """Temperature of the distribution to predict. The source has 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("objective.temperature", self.temperature, 0, open_low=True)


class TokenOrder(NextToken):
    """Next token, with a prediction of the order of the future tokens."""

    Config = TokenOrderConfig

    def __init__(self, spec: Spec, config: TokenOrderConfig, generator: torch.Generator) -> None:
        super().__init__(spec, config, generator)
        self.weight, self.temperature = config.weight, config.temperature
        self.head = nn.Linear(spec.width, spec.vocabulary.size, bias=False)

    def auxiliary(
        self, trunk: Trunk, hidden: Hidden, batch: Batch, *, step: int, generator: torch.Generator
    ) -> dict[str, Float[Tensor, ""]]:
        """Return the weighted cross-entropy between the true order and the order that the head predicts."""
        said = self.head(hidden.normed).float().log_softmax(-1)
        return {"order": self.weight * -(self.order(batch.target) * said).sum(-1).mean()}

    def order(self, target: Int[Tensor, "B L"]) -> Float[Tensor, "B L V"]:
        """Return the distribution over the vocabulary that each answer state should predict.

        If a token occurs several times, the nearest occurrence counts.
        """
        n_rows, length = target.shape
        distance = ahead(length, target.device)
        score = torch.where((distance >= 0) & (distance < self.horizon), -distance / self.temperature, -torch.inf)
        scores = torch.full((n_rows, length, self.spec.vocabulary.size), -torch.inf, device=target.device)
        index = target[:, None].expand(n_rows, length, length)
        return scores.scatter_reduce(2, index, score.expand_as(index), "amax").softmax(-1)
