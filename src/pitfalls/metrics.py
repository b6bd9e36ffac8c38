"""Functions from answers and logits to counts and costs. Counts add up over batches and runs, so intervals stay exact."""

from jaxtyping import Bool, Float, Int
from torch import Tensor


def correct(answer: Int[Tensor, "B L"], target: Int[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
    """Return which tokens are right."""
    return answer == target


def n_exact(right: Bool[Tensor, "B L"]) -> int:
    """Return the number of rows with every token right."""
    return int(right.all(1).sum())


def n_per_position(right: Bool[Tensor, "B L"]) -> list[int]:
    """Return for each target position the number of rows that are right there."""
    return [int(k) for k in right.sum(0)]


def negative_log_likelihood(logits: Float[Tensor, "B L V"], target: Int[Tensor, "B L"]) -> Float[Tensor, "B L"]:
    """Return -log p(target) of each token in nats, computed in fp32."""
    return -logits.float().log_softmax(-1).gather(2, target[..., None])[..., 0]


def entropy(logits: Float[Tensor, "B L V"]) -> Float[Tensor, "B L"]:
    """Return the entropy of the predicted distribution at each position in nats, computed in fp32."""
    log_p = logits.float().log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)
