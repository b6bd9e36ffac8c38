"""How much context a prediction needs: the same targets after k tokens, on prose and in loops; and entropy beside the tail."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pitfalls.language.loops import formed_loops, just_formed, unit
from pitfalls.language.reading import MAX_TOKENS, expectations
from pitfalls.language.settings import LabPlan

N_TARGETS = 8
"""Neighbouring targets that share a forward pass: the first has k tokens of context, the last k + 7."""
HEAD = 40
"""Tokens that are not the tail (the k of the usual top-k)."""
Texts = list[dict[str, Any]]


def steps(
    lm: PreTrainedModel, plan: LabPlan, start: Sequence[int], texts: Sequence[Sequence[int]], greedy: Callable[[], Texts]
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Per topic, the targets after every length of context, and entropies with tails; then loops."""
    settings = plan.settings
    first = max(settings.context_lengths)
    places = [first + N_TARGETS * i for i in range(settings.windows_per_text)]
    for name, text in zip(settings.topics, texts, strict=True):
        yield f"context/{name}", partial(by_length, lm, start, text, places, settings.context_lengths)
    for name, text in zip(settings.topics, texts, strict=True):
        yield f"tail/{name}", partial(tails, lm, [*start, *text[: settings.tail_tokens]])
    yield "context-of-loops", lambda: in_loops(lm, start, greedy(), settings.context_lengths)


@torch.no_grad()
def by_length(
    lm: PreTrainedModel, start: Sequence[int], text: Sequence[int], places: Sequence[int], lengths: Sequence[int]
) -> list[dict[str, Any]]:
    """By length of context, the longest first: per window, means over its targets.

    Args:
        lm: the model.
        start: what stands before every context, and is not counted.
        text: tokens.
        places: where each window of `N_TARGETS` targets begins.
        lengths: tokens of context; none longer than the first place.

    Returns:
        ``length``; ``nll`` and ``entropy`` in nats; ``kl``: from the predictions after the longest context to these, nats;
        ``agreement``: how often both have the same most likely token.
    """
    targets = torch.tensor([[text[place + i] for i in range(N_TARGETS)] for place in places])
    longest: Tensor | None = None
    rows: list[dict[str, Any]] = []
    for length in sorted(lengths, reverse=True):
        log_p = _predictions(lm, [[*start, *text[place - length : place + N_TARGETS - 1]] for place in places])
        longest = log_p if longest is None else longest
        p = log_p.exp()
        rows.append(
            {
                "length": length,
                "nll": -log_p.gather(2, targets[:, :, None])[:, :, 0].mean(1),
                "entropy": -(p * log_p.nan_to_num(0.0, neginf=0.0)).sum(2).mean(1),
                "kl": (longest.exp() * (longest - log_p).nan_to_num(0.0)).sum(2).mean(1),
                "agreement": (longest.argmax(2) == log_p.argmax(2)).float().mean(1),
            }
        )
    return [{name: x.tolist() if isinstance(x, Tensor) else x for name, x in row.items()} for row in rows]


def _predictions(lm: PreTrainedModel, windows: Sequence[Sequence[int]]) -> Tensor:
    """Float[W,N_TARGETS,V] log-probabilities of the targets; a window ends before its last target."""
    most = max(1, MAX_TOKENS // len(windows[0]))
    groups = [windows[i : i + most] for i in range(0, len(windows), most)]
    # the last target has nothing after it: a token of nonsense is read there and its prediction is not looked at
    return torch.cat([expectations(lm, [[*window, 0] for window in group])[:, -N_TARGETS:] for group in groups])


@torch.no_grad()
def tails(lm: PreTrainedModel, text: Sequence[int]) -> dict[str, list[float]]:
    """By context: entropy in nats, and mass outside of the `HEAD` likeliest tokens."""
    p = expectations(lm, [text])[0].exp().sort(1, descending=True).values
    return {
        "entropy": (p * p.clamp_min(1e-30).log()).sum(1).neg().tolist(),
        "tail": p[:, HEAD:].sum(1).tolist(),
    }


def in_loops(lm: PreTrainedModel, start: Sequence[int], texts: Texts, lengths: Sequence[int]) -> list[dict[str, Any]]:
    """By formed loop: mean probability that its fourth copy begins (`N_TARGETS` tokens), after each length of context."""
    found = []
    for text, loop in formed_loops(texts):
        before, repeated = just_formed(text, loop), unit(text, loop)
        whole = [*before, *(repeated[i % len(repeated)] for i in range(N_TARGETS))]
        targets = torch.tensor(whole[-N_TARGETS:])[None, :, None]
        by_length_: dict[str, float] = {}
        for length in (n for n in lengths if n <= len(before)):
            window = [*start, *whole[len(before) - length : -1]]
            with torch.no_grad():
                by_length_[str(length)] = _predictions(lm, [window]).gather(2, targets).exp().mean().item()
        found.append({"name": text["name"], "period": loop.period, "p": by_length_})
    return found
