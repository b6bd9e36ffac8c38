"""The effect of context on predictions: the same targets after k tokens of context, on prose and in loops.

On prose, also the entropy of each prediction and the probability mass of its tail.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pitfalls.language.lab_parts import (
    ContextLengths,
    GreedyText,
    LengthRow,
    LoopInContext,
    LoopsInContext,
    Step,
    TailMass,
    TailMasses,
    formed_loops,
    just_formed,
    unit_of,
)
from pitfalls.language.lab_settings import N_TARGETS, LabPlan
from pitfalls.language.reading import MAX_TOKENS, expectations

HEAD = 40
"""Number of likeliest tokens that are not the tail (k of the usual top-k)."""


def steps(
    lm: PreTrainedModel,
    plan: LabPlan,
    start: Sequence[int],
    texts: Sequence[Sequence[int]],
    greedy: Callable[[], list[GreedyText]],
) -> Iterator[Step[Any]]:
    """Yield, per topic, the targets after every length of context and the tails, and at last the loops."""
    settings = plan.settings
    first = max(settings.context_lengths)
    places = [first + N_TARGETS * i for i in range(settings.windows_per_text)]
    for topic, text in zip(settings.topics, texts, strict=True):
        yield Step(ContextLengths(topic), partial(by_length, lm, start, text, places, settings.context_lengths))
    for topic, text in zip(settings.topics, texts, strict=True):
        yield Step(TailMasses(topic), partial(tails, lm, [*start, *text[: settings.tail_tokens]]))
    yield Step(LoopsInContext(), lambda: in_loops(lm, start, greedy(), settings.context_lengths))


@torch.no_grad()
def by_length(
    lm: PreTrainedModel, start: Sequence[int], text: Sequence[int], places: Sequence[int], lengths: Sequence[int]
) -> list[LengthRow]:
    """Return one row per length of context, the longest first.

    Args:
        lm: the model.
        start: tokens before every context. They are not counted.
        text: the tokens of the text.
        places: the first place of each window of `N_TARGETS` targets.
        lengths: numbers of tokens of context, none larger than the first place.
    """
    targets = torch.tensor([[text[place + i] for i in range(N_TARGETS)] for place in places])
    longest: Tensor | None = None
    rows = []
    for length in sorted(lengths, reverse=True):
        log_p = _predictions(lm, [[*start, *text[place - length : place + N_TARGETS - 1]] for place in places])
        longest = log_p if longest is None else longest
        p = log_p.exp()
        rows.append(
            LengthRow(
                length,
                nll=(-log_p.gather(2, targets[:, :, None])[:, :, 0].mean(1)).tolist(),
                entropy=(-(p * log_p.nan_to_num(0.0, neginf=0.0)).sum(2).mean(1)).tolist(),
                kl=(longest.exp() * (longest - log_p).nan_to_num(0.0)).sum(2).mean(1).tolist(),
                agreement=(longest.argmax(2) == log_p.argmax(2)).float().mean(1).tolist(),
            )
        )
    return rows


def _predictions(lm: PreTrainedModel, windows: Sequence[Sequence[int]]) -> Tensor:
    """Return Float[W,N_TARGETS,V] log-probabilities at the targets. The input of a window ends before its last target."""
    most = max(1, MAX_TOKENS // len(windows[0]))
    groups = [windows[i : i + most] for i in range(0, len(windows), most)]
    # `expectations` drops the prediction after a text's last token, so each window gets one more token, which no target sees
    return torch.cat([expectations(lm, [[*window, 0] for window in group])[:, -N_TARGETS:] for group in groups])


@torch.no_grad()
def tails(lm: PreTrainedModel, text: Sequence[int]) -> TailMass:
    """Return the entropy of each prediction in a text, and the mass outside of the `HEAD` likeliest tokens."""
    p = expectations(lm, [text])[0].exp().sort(1, descending=True).values
    return TailMass((p * p.clamp_min(1e-30).log()).sum(1).neg().tolist(), p[:, HEAD:].sum(1).tolist())


def in_loops(
    lm: PreTrainedModel, start: Sequence[int], texts: Sequence[GreedyText], lengths: Sequence[int]
) -> list[LoopInContext]:
    """Return, for each formed loop, the mean probability of its next `N_TARGETS` tokens after each length of context."""
    found = []
    for text, loop in formed_loops(texts):
        before, repeated = just_formed(text, loop), unit_of(text, loop)
        whole = [*before, *(repeated[i % len(repeated)] for i in range(N_TARGETS))]
        targets = torch.tensor(whole[-N_TARGETS:])[None, :, None]
        p_by_length: dict[int, float] = {}
        for length in (n for n in lengths if n <= len(before)):
            window = [*start, *whole[len(before) - length : -1]]
            with torch.no_grad():
                p_by_length[length] = _predictions(lm, [window]).gather(2, targets).exp().mean().item()
        found.append(LoopInContext(text.name, loop.period, p_by_length))
    return found
