"""Token ids of the path-star task: node values first, then one fixed pool of special tokens.

The pool is the same for every objective, whether it uses a symbol or not, so that the trunk's shape, and with it the
trunk's initial weights for a seed, are identical across objectives.
"""

from collections.abc import Iterable
from dataclasses import dataclass

SPECIALS = ("|", "/", "=", "<dummy>", "<mask>", "<reg>", "<T>", "</T>", "<eos>", "<pad>")
"""``|`` ends an edge, ``/`` ends the last edge, ``=`` ends the prompt; the rest belong to objectives."""


@dataclass(frozen=True)
class Vocabulary:
    """Token ids for node values 0..n_values-1 and the special symbols."""

    n_values: int

    @property
    def size(self) -> int:
        """Number of token ids."""
        return self.n_values + len(SPECIALS)

    def id(self, symbol: str) -> int:
        """The id of a special symbol.

        Raises:
            ValueError: the symbol is not in the pool.
        """
        if symbol not in SPECIALS:
            raise ValueError(f"no special token {symbol!r}; there are {' '.join(SPECIALS)}")
        return self.n_values + SPECIALS.index(symbol)

    def symbol(self, token: int) -> str:
        """The text of one token: a number for a node value, else its symbol."""
        return str(token) if token < self.n_values else SPECIALS[token - self.n_values]

    def text(self, tokens: Iterable[int]) -> str:
        """The text of a token sequence, separated by spaces."""
        return " ".join(self.symbol(int(t)) for t in tokens)
