"""Counts and evaluations, and the checked types of the numbers and names in a run's files.

Files keep counts and never ratios, so that intervals over several runs stay exact.
"""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from pitfalls.schemas import MAX_COUNT, NAME_PATTERN

Natural = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
Positive = Annotated[int, Meta(ge=1, le=MAX_COUNT)]
Seconds = Annotated[float, Meta(ge=0, le=1e11)]
"""Seconds, up to some thousand years."""
Name = Annotated[str, Meta(pattern=NAME_PATTERN, max_length=200)]
"""The name of a run. It is the name of a folder, never a path."""
Text = Annotated[str, Meta(max_length=4096)]
Scalar = bool | int | float | Text | None
Split = Literal["test", "train"]
FIRST_HOP = 1
"""Index of the first hop among the target positions."""


class Count(Struct, frozen=True, forbid_unknown_fields=True):
    """A count: k of n rows. It is 0 of 0 if a method does not answer."""

    k: Natural
    n: Natural

    def __post_init__(self) -> None:
        if self.k > self.n:
            raise ValueError(f"{self.k} of {self.n} is no count of k among n")

    @property
    def share(self) -> float | None:
        """Share k/n, or None if n is 0."""
        return self.k / self.n if self.n else None

    def __add__(self, other: "Count") -> "Count":
        return Count(self.k + other.k, self.n + other.n)


class Evaluation(Struct, frozen=True, forbid_unknown_fields=True):
    """Counts over the rows of one evaluation. A target position that a method does not answer has n = 0.

    ``free_*`` comes from the method's own inference. ``forced_*`` reads each position given the gold tokens before it. The
    two differ for a cheat: free-running, a wrong first hop makes every later token of the arm wrong as well.
    """

    exact_match: Count
    first_hop: Count
    free_position_accuracy: list[Count]
    """A count per target position."""
    forced_position_accuracy: list[Count]
    """A count per target position."""
    right_arm: Count
    wrong_arm: Count
    broken_walk: Count
    decoder: Text
    wrong_arm_then_goal: Count | UnsetType = UNSET
    """Count of this outcome. The learning curves of the first runs do not have it."""

    @property
    def forced(self) -> list[float | None]:
        """Accuracy per target position under teacher forcing. It is None where the method does not answer."""
        return [count.share for count in self.forced_position_accuracy]

    @property
    def free(self) -> list[float | None]:
        """Accuracy per target position of the method's own inference. It is None where the method does not answer."""
        return [count.share for count in self.free_position_accuracy]

    @property
    def other_positions(self) -> float | None:
        """Lowest accuracy of a position besides the first hop, given the gold tokens before it. None without teacher forcing."""
        shares = [share for i, share in enumerate(self.forced) if i != FIRST_HOP and share is not None]
        return min(shares, default=None)

    def __add__(self, other: "Evaluation") -> "Evaluation":
        """Return the summed counts of two evaluations of the same method."""

        def added(name: str) -> Any:
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, list):
                return [a + b for a, b in zip(mine, theirs, strict=True)]
            return mine + theirs if isinstance(mine, Count) and isinstance(theirs, Count) else mine

        return Evaluation(**{name: added(name) for name in self.__struct_fields__})


def per_position(evaluations: Iterable[Evaluation]) -> Iterator[tuple[str, int]]:
    """Yield name and length of the lists with a count per target position."""
    for evaluation in evaluations:
        yield "forced_position_accuracy", len(evaluation.forced_position_accuracy)
        yield "free_position_accuracy", len(evaluation.free_position_accuracy)


def check_lengths(lists: Iterable[tuple[str, int]], path_length: int) -> None:
    """Refuse lists that do not have an entry per target position.

    Raises:
        ValueError: names the first such list.
    """
    for name, length in lists:
        if length != path_length:
            raise ValueError(f"{name}: {length} entries for {path_length} target positions")
