"""Reversed targets (Bachmann & Nagarajan 2024, section 5.2): next-token prediction of goal .. start.

From the goal, every step is a lookup of the one edge that ends at the current node, so nothing needs planning. This is a
control, not a remedy: it shows that the task can be solved with this trunk and this loss.
"""

from jaxtyping import Int
from torch import Tensor

from pitfalls.objectives.next_token import NextToken
from pitfalls.tasks.batch import Batch


class Reversed(NextToken):
    """Next-token prediction on the path from the goal to the start."""

    def view(self, batch: Batch) -> Batch:
        """Return the batch with its targets from the goal to the start. The prompts stay."""
        return batch._replace(target=batch.target.flip(1))

    def unview(self, tokens: Int[Tensor, "B W"]) -> Int[Tensor, "B L"]:
        """Return answers from the start to the goal."""
        return tokens.flip(1)
