"""What passes between the task and everything that learns from it."""

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor


class Batch(NamedTuple):
    """Path-star samples in canonical order: the target runs from the start to the goal."""

    prompt: Int[Tensor, "B P"]
    target: Int[Tensor, "B L"]

    def to(self, device: torch.device | str) -> "Batch":
        """The same rows on another device."""
        return Batch(self.prompt.to(device), self.target.to(device))

    def rows(self, start: int, stop: int) -> "Batch":
        """Rows start..stop-1, as views."""
        return Batch(self.prompt[start:stop], self.target[start:stop])
