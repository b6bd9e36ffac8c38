"""Functions that pick a token from logits: the most probable one, or a random draw."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

Pick = Callable[[Tensor], Tensor]
"""A function: Float[..., V] logits -> Long[...] tokens."""


def greedy(logits: Float[Tensor, "*B V"]) -> Int[Tensor, "*B"]:
    """Return the most probable token."""
    return logits.argmax(-1)


def sampling(generator: torch.Generator) -> Pick:
    """Return a function that draws tokens from the model's own distribution (temperature 1). Each call makes new draws."""

    def pick(logits: Float[Tensor, "*B V"]) -> Int[Tensor, "*B"]:
        p = logits.float().softmax(-1)
        return torch.multinomial(p.flatten(0, -2), 1, generator=generator).view(p.shape[:-1])

    return pick
