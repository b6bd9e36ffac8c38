"""Token ids of the path-star task: node values first, then a fixed list of special symbols.

The list is the same for every objective, whether it uses a symbol or not. So the trunk has the same shape, and for a seed
the same initial weights, with every objective. For a pretrained model, each id is mapped to one existing token of the model's
own tokenizer, so that prompts and targets keep their lengths.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from pitfalls.schemas import ConfigError

SPECIALS = ("|", "/", "=", "<dummy>", "<mask>", "<reg>", "<T>", "</T>", "<eos>", "<pad>")
"""Special symbols: ``|`` ends an edge, ``/`` ends the last edge, ``=`` ends the prompt. Objectives use the others."""

PREFERRED = {"<dummy>": "$", "<mask>": "_", "<reg>": "#", "<T>": "[", "</T>": "]", "<eos>": ".", "<pad>": ";"}
"""Character that a pretrained model reads for a symbol that no tokenizer has. The dummy is the one of the published code."""


class ModelToken(NamedTuple):
    """An existing token of a pretrained model."""

    id: int
    """Token id of the model's tokenizer."""
    text: str
    """Text that the tokenizer decodes the id to."""


@dataclass(frozen=True)
class Vocabulary:
    """Token ids of the node values 0..n_values-1 and of the special symbols."""

    n_values: int
    """Number of node values N. A node value is its own id."""
    model_tokens: tuple[ModelToken, ...] | None = None
    """Token of a pretrained model for each id, or None if the model has these ids itself."""

    @classmethod
    def from_tokenizer(cls, tokenizer: Any, n_values: int) -> "Vocabulary":
        """Return a vocabulary whose ids are mapped to distinct existing tokens of a Hugging Face tokenizer.

        A node value takes the token of its number (``7`` or `` 7``) if there is one such token. A symbol takes the token of
        its character. Ids without such a token take the first words of the tokenizer's vocabulary.

        Raises:
            ConfigError: the tokenizer has too few such tokens.
        """
        wanted = [*map(str, range(n_values)), *(PREFERRED.get(symbol, symbol) for symbol in SPECIALS)]
        ids: list[int | None] = []
        for text in wanted:
            candidates = (_single_token(tokenizer, variant) for variant in (text, f" {text}"))
            ids.append(next((i for i in candidates if i is not None and i not in ids), None))
        spare = (i for i in _words(tokenizer) if i not in ids)
        complete = [next(spare, None) if i is None else i for i in ids]
        if None in complete:
            raise ConfigError(
                f"the tokenizer has single tokens for {sum(i is not None for i in complete)} of {len(wanted)} node values "
                f"and symbols; lower task.n_values={n_values} or set model.new_tokens=true"
            )
        return cls(n_values, tuple(ModelToken(i, tokenizer.decode([i])) for i in complete if i is not None))

    @property
    def size(self) -> int:
        """Number of token ids of the task. A pretrained model has more ids, which mean nothing in the task."""
        return self.n_values + len(SPECIALS)

    def id(self, symbol: str) -> int:
        """Return the id of a special symbol.

        Raises:
            ValueError: there is no such symbol.
        """
        if symbol not in SPECIALS:
            raise ValueError(f"no special token {symbol!r}; there are {' '.join(SPECIALS)}")
        return self.n_values + SPECIALS.index(symbol)

    def symbol(self, token: int) -> str:
        """Return the text of one token: the number of a node value, a symbol, or <?> for an id that is not of the task."""
        if token >= self.size:
            return "<?>"
        return str(token) if token < self.n_values else SPECIALS[token - self.n_values]

    def text(self, tokens: Iterable[int]) -> str:
        """Return the text of a sequence of tokens, separated by spaces."""
        return " ".join(self.symbol(int(t)) for t in tokens)


def _single_token(tokenizer: Any, text: str) -> int | None:
    """Return the id of a text that is one ordinary token, else None."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    known = len(ids) == 1 and ids[0] not in tokenizer.all_special_ids and tokenizer.decode(ids) == text
    return ids[0] if known else None


def _words(tokenizer: Any) -> Iterator[int]:
    """Yield the ids of tokens that are a word of ASCII letters, in order."""
    special = set(tokenizer.all_special_ids)
    for i in range(len(tokenizer)):
        text = tokenizer.decode([i]).strip()
        if i not in special and text.isascii() and text.isalpha():
            yield i
