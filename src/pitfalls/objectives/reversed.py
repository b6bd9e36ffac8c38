"""Reversed targets (Bachmann & Nagarajan 2024, section 5.2): next-token prediction of goal .. start.

From the goal every step is a lookup of the one edge that ends at the current node: nothing needs planning. It is the
control that the task can be solved with this trunk and this loss, not a remedy.
"""

from jaxtyping import Int
from torch import Tensor

from pitfalls.objectives.next_token import NextToken
from pitfalls.tasks.batch import Batch


class Reversed(NextToken):
    """`NextToken` with a reversing view."""

    def view(self, batch: Batch) -> Batch:
        """The target from the goal to the start; the prompt stays."""
        return batch._replace(target=batch.target.flip(1))

    def unview(self, tokens: Int[Tensor, "B L"]) -> Int[Tensor, "B L"]:
        """Back to start .. goal."""
        return tokens.flip(1)
