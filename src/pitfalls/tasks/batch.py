"""What passes between the task and everything that learns from it."""

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor


class Shared(NamedTuple):
    """What rows that lie side by side have in common, so that a trunk need read it only once."""

    rows: int
    """Each ``rows`` of them, from the first row on, belong to one graph."""
    tokens: int
    """First tokens of their prompts, which are equal."""


class Batch(NamedTuple):
    """Path-star samples in canonical order: the target runs from the start to the goal."""

    prompt: Int[Tensor, "B P"]
    target: Int[Tensor, "B L"]
    shared: Shared | None = None

    def to(self, device: torch.device | str) -> "Batch":
        """The same rows on another device."""
        return self._replace(prompt=self.prompt.to(device), target=self.target.to(device))

    def rows(self, start: int, stop: int) -> "Batch":
        """Rows start..stop-1, as views."""
        whole_graphs = self.shared and start % self.shared.rows == 0 and (stop - start) % self.shared.rows == 0
        return Batch(self.prompt[start:stop], self.target[start:stop], self.shared if whole_graphs else None)
