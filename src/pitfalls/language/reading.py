"""What a model expects at every token of a text, given the tokens before it: one forward pass, numbers in fp32, nats."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pitfalls.language.generation import end_tokens
from pitfalls.language.settings import padded

MAX_TOKENS = 2048
"""Of one forward pass: its logits have to fit into memory."""


@dataclass(frozen=True)
class Reading:
    """Float[T] each; entry i is about token i given those before it, and entry 0, which nothing precedes, is NaN."""

    log_p: Tensor
    """Log-probability of the token."""
    entropy: Tensor
    top: Tensor
    """Probability of the most likely token."""
    end: Tensor
    """Probability that the text ends here."""

    @property
    def p(self) -> Tensor:
        """Probability of the token."""
        return self.log_p.exp()

    def since(self, start: int) -> "Reading":
        """From a token on."""
        return Reading(*(x[start:] for x in (self.log_p, self.entropy, self.top, self.end)))


@torch.no_grad()
def read(lm: PreTrainedModel, texts: Sequence[Sequence[int]]) -> list[Reading]:
    """Read every text, in groups that fit."""
    found = []
    for group in _groups(texts):
        log_p = expectations(lm, group)
        for row, text in zip(log_p, group, strict=True):
            found.append(_of(row[: len(text) - 1], torch.tensor(text[1:]), end_tokens(lm)))
    return found


@torch.no_grad()
def expectations(lm: PreTrainedModel, texts: Sequence[Sequence[int]]) -> Tensor:
    """Float[B,T-1,V] log-probabilities of the token after each; rows of shorter texts end in nonsense.

    Padding stands on the right, where a causal model does not see it.
    """
    tokens, mask = padded(texts, "right")
    logits = lm(input_ids=tokens.to(lm.device), attention_mask=mask.to(lm.device), use_cache=False).logits
    return torch.log_softmax(logits[:, :-1].float(), -1).cpu()


def of_logits(log_p: Tensor, tokens: Tensor, ends: list[int]) -> Reading:
    """Of Float[T,V] log-probabilities and the Long[T] tokens that came; here entry 0 is a number."""
    p = log_p.exp()
    return Reading(
        log_p.gather(1, tokens[:, None])[:, 0],
        -(p * log_p.nan_to_num(0.0, neginf=0.0)).sum(1),
        p.amax(1),
        p[:, ends].sum(1),
    )


def _of(log_p: Tensor, tokens: Tensor, ends: list[int]) -> Reading:
    nothing = torch.full((1,), torch.nan)
    found = of_logits(log_p, tokens, ends)
    return Reading(*(torch.cat([nothing, row]) for row in (found.log_p, found.entropy, found.top, found.end)))


def _groups(texts: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    group: list[Sequence[int]] = []
    for text in texts:
        if group and (len(group) + 1) * max(map(len, [*group, text])) > MAX_TOKENS:
            yield group
            group = []
        group.append(text)
    if group:
        yield group
