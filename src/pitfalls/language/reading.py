"""The predictions of a model at every token of a text, from one forward pass. Numbers are in fp32 and in nats."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pitfalls.language.generation import end_tokens

MAX_TOKENS = 2048
"""Largest number of tokens of one forward pass, so that its logits fit into memory."""


@dataclass(frozen=True)
class TextReading:
    """The predictions of a model at each of T tokens. Each field is a Float[T].

    Entry i is about token i, given the tokens before it. Entry 0 is NaN if nothing precedes the text.
    """

    log_p: Tensor
    """Log-probability of the token in nats."""
    entropy: Tensor
    """Entropy of the prediction in nats."""
    top: Tensor
    """Probability of the likeliest token."""
    end: Tensor
    """Probability that the text ends here."""

    @property
    def p(self) -> Tensor:
        """Probability of the token."""
        return self.log_p.exp()

    def since(self, start: int) -> "TextReading":
        """Return the reading from token ``start`` on."""
        return TextReading(*(x[start:] for x in (self.log_p, self.entropy, self.top, self.end)))


@torch.no_grad()
def read(lm: PreTrainedModel, texts: Sequence[Sequence[int]]) -> list[TextReading]:
    """Return the reading of every text. Texts are read in groups that fit into the memory."""
    found = []
    for group in _groups(texts):
        log_p = expectations(lm, group)
        for row, text in zip(log_p, group, strict=True):
            found.append(_after_nothing(reading_of_logits(row[: len(text) - 1], torch.tensor(text[1:]), end_tokens(lm))))
    return found


@torch.no_grad()
def expectations(lm: PreTrainedModel, texts: Sequence[Sequence[int]]) -> Tensor:
    """Return Float[B,T-1,V] log-probabilities of the next token after each token. The ends of shorter rows mean nothing.

    Padding is on the right, where a causal model does not see it.
    """
    tokens, mask = padded(texts, "right")
    logits = lm(input_ids=tokens.to(lm.device), attention_mask=mask.to(lm.device), use_cache=False).logits
    return torch.log_softmax(logits[:, :-1].float(), -1).cpu()


def reading_of_logits(log_p: Tensor, tokens: Tensor, ends: list[int]) -> TextReading:
    """Return the reading of Long[T] tokens from the Float[T,V] log-probabilities at their places. No entry is NaN."""
    p = log_p.exp()
    return TextReading(
        log_p.gather(1, tokens[:, None])[:, 0],
        -(p * log_p.nan_to_num(0.0, neginf=0.0)).sum(1),
        p.amax(1),
        p[:, ends].sum(1),
    )


def padded(rows: Sequence[Sequence[int]], side: str) -> tuple[Tensor, Tensor]:
    """Return Long[B,T] tokens, padded on the "left" or "right", and the mask that is 1 at tokens and 0 at padding.

    Padding is the row's own first token, because the repetition penalty of older transformers counts any other token too.
    """
    width = max(map(len, rows))
    tokens = torch.tensor([row[0] for row in rows])[:, None].repeat(1, width)
    mask = torch.zeros_like(tokens)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        tokens[i, place] = torch.tensor(row)
        mask[i, place] = 1
    return tokens, mask


def _after_nothing(reading: TextReading) -> TextReading:
    """Return a reading with NaN in front, for a first token that nothing precedes."""
    nothing = torch.full((1,), torch.nan)
    return TextReading(*(torch.cat([nothing, row]) for row in (reading.log_p, reading.entropy, reading.top, reading.end)))


def _groups(texts: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    """Yield the texts in order, in groups of at most `MAX_TOKENS` padded tokens."""
    group: list[Sequence[int]] = []
    for text in texts:
        if group and (len(group) + 1) * max(map(len, [*group, text])) > MAX_TOKENS:
            yield group
            group = []
        group.append(text)
    if group:
        yield group
