"""Self-reinforcement (Xu et al. 2022, arXiv 2206.02369): what a model expects of the next copy of a unit that is repeated."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from pitfalls.degeneration.reading import read
from pitfalls.degeneration.settings import Plan
from pitfalls.schemas import ConfigError
from pitfalls.seeding import generator

RANDOM_LENGTH = 8
"""Tokens of a random unit."""


def steps(lm: PreTrainedModel, tokenizer: Any, plan: Plan) -> Iterator[tuple[str, Callable[[], Any]]]:
    """One part per kind of unit."""
    n, copies = plan.settings.n_units, plan.settings.copies

    def encoded(texts: Sequence[str]) -> list[list[int]]:
        return [list(tokenizer(text, add_special_tokens=False).input_ids) for text in texts[:n]]

    words = encoded(plan.units.words)
    if long := [plan.units.words[i] for i, ids in enumerate(words) if len(ids) > 1]:
        words = [ids for ids in words if len(ids) == 1]
        if not words:
            raise ConfigError(f"units.yaml: words: {long[0]!r} and all others are several tokens each here; choose others")
    yield "units/sentence", lambda: expected(lm, encoded(plan.units.sentences), copies)
    yield "units/random", lambda: expected(lm, random_units(lm, tokenizer, n, plan.settings.seed), copies)
    yield "units/word", lambda: expected(lm, words, copies)


def random_units(lm: PreTrainedModel, tokenizer: Any, n: int, seed: int) -> list[list[int]]:
    """Of ordinary tokens, each as likely as any other."""
    special = set(tokenizer.all_special_ids)
    size = min(len(tokenizer), lm.get_input_embeddings().weight.shape[0])
    ordinary = torch.tensor([i for i in range(size) if i not in special])
    draws = torch.randint(len(ordinary), (n, RANDOM_LENGTH), generator=generator(seed, "probe", 0))
    rows: list[list[int]] = ordinary[draws].tolist()
    return rows


def expected(lm: PreTrainedModel, units: Sequence[Sequence[int]], copies: int) -> list[dict[str, list[float]]]:
    """By unit and by copy from the second on: mean probability of its tokens, of the likeliest token, and entropy."""
    readings = read(lm, [[*unit] * copies for unit in units])
    found = []
    for unit, reading in zip(units, readings, strict=True):
        by_copy = [x.reshape(copies, len(unit))[1:].mean(1).tolist() for x in (reading.p, reading.top, reading.entropy)]
        found.append(dict(zip(("p", "top", "entropy"), by_copy, strict=True)))
    return found
