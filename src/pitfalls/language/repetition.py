"""Loops and repeated n-grams in the tokens of a text."""

from collections.abc import Sequence
from dataclasses import dataclass

MIN_COPIES = 3
"""Least number of copies of a unit, one after another, that make a loop."""


@dataclass(frozen=True)
class Loop:
    """A stretch of a text in which one unit repeats. All numbers count tokens."""

    start: int
    """Place of the first token of the first copy."""
    period: int
    """Length of the shortest unit that the stretch repeats."""
    end: int
    """Place of the first token that breaks the repetition, or the text's length if none does."""

    @property
    def copies(self) -> float:
        """Number of copies. The last one may be cut short."""
        return (self.end - self.start) / self.period

    @property
    def formed(self) -> int:
        """Place at which `MIN_COPIES` copies are complete. From there on the stretch counts as a loop."""
        return self.start + MIN_COPIES * self.period

    def copy_of(self, place: int) -> int:
        """Return the number of the copy, from 1 on, to which the token at a place of the loop belongs."""
        return (place - self.start) // self.period + 1


def find_loops(tokens: Sequence[int]) -> list[Loop]:
    """Return every exact repetition with at least `MIN_COPIES` copies, in the order in which they form.

    A stretch occurs once in the result, with its shortest period. Two loops overlap if the first unit ends as the second begins.
    """
    n, found = len(tokens), []
    for period in range(1, n // MIN_COPIES + 1):
        i = period
        while i < n:
            begin = i
            while i < n and tokens[i] == tokens[i - period]:
                i += 1
            if i - begin >= (MIN_COPIES - 1) * period:
                found.append(Loop(begin - period, period, i))
            i += 1
    kept: list[Loop] = []
    for loop in sorted(found, key=lambda loop: loop.period):
        if not any(loop.start >= other.start and loop.end <= other.end and loop.period % other.period == 0 for other in kept):
            kept.append(loop)
    return sorted(kept, key=lambda loop: (loop.formed, loop.period))


def final_loop(tokens: Sequence[int]) -> Loop | None:
    """Return the loop at the end of the text, or None. If there are several, it is the one that formed first."""
    return next((loop for loop in find_loops(tokens) if loop.end == len(tokens)), None)


def n_grams(tokens: Sequence[int], n: int) -> list[tuple[int, ...]]:
    """Return all n-grams of a text, in order."""
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))


def repeated(tokens: Sequence[int], n: int) -> float:
    """Return rep-n, the share of n-grams that occurred earlier in the text (seq-rep-n of Welleck et al. 2020, arXiv 1908.04319).

    Raises:
        ValueError: the text has no n-gram.
    """
    grams = n_grams(tokens, n)
    if not grams:
        raise ValueError(f"{len(tokens)} tokens have no {n}-gram")
    return 1 - len(set(grams)) / len(grams)


def distinct(texts: Sequence[Sequence[int]], n: int) -> float:
    """Return distinct-n, the share of different n-grams among those of all texts (Li et al. 2016, arXiv 1510.03055).

    Raises:
        ValueError: no text has an n-gram.
    """
    grams = [gram for tokens in texts for gram in n_grams(tokens, n)]
    if not grams:
        raise ValueError(f"{len(texts)} texts have no {n}-gram")
    return len(set(grams)) / len(grams)
