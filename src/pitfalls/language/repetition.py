"""Repetition in a text, as counts on its tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

MIN_COPIES = 3


@dataclass(frozen=True)
class Loop:
    """A stretch of a text that is one unit, again and again; all numbers are tokens."""

    start: int
    """Where the first copy begins."""
    period: int
    """Length of the unit, the shortest that the stretch repeats."""
    end: int
    """Where the first token stands that breaks the repetition; the text's length where none does."""

    @property
    def copies(self) -> float:
        """How often the unit stands there; the last copy may be cut short."""
        return (self.end - self.start) / self.period

    @property
    def formed(self) -> int:
        """Where `MIN_COPIES` copies are complete: from here on it counts as a loop."""
        return self.start + MIN_COPIES * self.period

    def copy_of(self, place: int) -> int:
        """Which copy, from 1 on, the token at a place within the loop belongs to."""
        return (place - self.start) // self.period + 1


def find_loops(tokens: Sequence[int]) -> list[Loop]:
    """Every exact repetition with at least `MIN_COPIES` copies, in the order in which they form.

    A stretch is given once, with its shortest period. Two loops overlap where one unit ends as the next begins.
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
    """The loop that the text is in when it ends, if it is in one: the one that formed first."""
    return next((loop for loop in find_loops(tokens) if loop.end == len(tokens)), None)


def n_grams(tokens: Sequence[int], n: int) -> list[tuple[int, ...]]:
    """All of them, in order."""
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))


def repeated(tokens: Sequence[int], n: int) -> float:
    """rep-n: the share of a text's n-grams that have stood there before (seq-rep-n of Welleck et al. 2020, arXiv 1908.04319).

    Raises:
        ValueError: the text has no n-gram.
    """
    grams = n_grams(tokens, n)
    if not grams:
        raise ValueError(f"{len(tokens)} tokens have no {n}-gram")
    return 1 - len(set(grams)) / len(grams)


def distinct(texts: Sequence[Sequence[int]], n: int) -> float:
    """distinct-n: different n-grams of all texts over all n-grams (Li et al. 2016, arXiv 1510.03055).

    Raises:
        ValueError: no text has an n-gram.
    """
    grams = [gram for tokens in texts for gram in n_grams(tokens, n)]
    if not grams:
        raise ValueError(f"{len(texts)} texts have no {n}-gram")
    return len(set(grams)) / len(grams)
