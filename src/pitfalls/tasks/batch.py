"""Batches of samples, which a task gives to training, evaluation and probes."""

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor


class Shared(NamedTuple):
    """The tokens that neighbouring rows have in common, so that a trunk can read them once."""

    rows: int
    """Number of neighbouring rows that belong to one graph, counted from the first row of the batch on."""
    tokens: int
    """Number of tokens at the start of the prompts that these rows have in common."""


class Batch(NamedTuple):
    """Samples in canonical order: the target of a path-star graph runs from the start to the goal."""

    prompt: Int[Tensor, "B P"]
    """Tokens that the model is given."""
    target: Int[Tensor, "B L"]
    """Tokens of the answer."""
    shared: Shared | None = None
    """Tokens that rows of one graph have in common, or None if every row is a graph of its own."""

    def to(self, device: torch.device | str) -> "Batch":
        """Return the same rows on another device."""
        return self._replace(prompt=self.prompt.to(device), target=self.target.to(device))

    def rows(self, start: int, stop: int) -> "Batch":
        """Return rows start .. stop-1 as views. They share tokens only if no graph is cut in two."""
        whole_graphs = self.shared and start % self.shared.rows == 0 and (stop - start) % self.shared.rows == 0
        return Batch(self.prompt[start:stop], self.target[start:stop], self.shared if whole_graphs else None)
