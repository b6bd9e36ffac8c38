"""Pure functions from answers to counts. Counts add up over batches and runs, so intervals stay exact."""

from jaxtyping import Bool, Float, Int
from torch import Tensor


def correct(answer: Int[Tensor, "B L"], target: Int[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
    """Which tokens are right."""
    return answer == target


def n_exact(right: Bool[Tensor, "B L"]) -> int:
    """Rows with every token right."""
    return int(right.all(1).sum())


def n_per_position(right: Bool[Tensor, "B L"]) -> list[int]:
    """Rows that are right at each target position."""
    return [int(k) for k in right.sum(0)]


def negative_log_likelihood(logits: Float[Tensor, "B L V"], target: Int[Tensor, "B L"]) -> Float[Tensor, "B L"]:
    """-log p(target) in nats, per token."""
    return -logits.float().log_softmax(-1).gather(2, target[..., None])[..., 0]


def entropy(logits: Float[Tensor, "B L V"]) -> Float[Tensor, "B L"]:
    """Entropy of the predicted distribution in nats, per token."""
    log_p = logits.float().log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)
