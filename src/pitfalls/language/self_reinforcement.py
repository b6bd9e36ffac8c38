"""Self-reinforcement (Xu et al. 2022, arXiv 2206.02369): predictions of the next copy of a repeated unit."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from pitfalls.language.lab_parts import CopyMeans, RepeatedUnits, Step
from pitfalls.language.lab_settings import LabPlan, beginning
from pitfalls.language.reading import read
from pitfalls.schemas import ConfigError
from pitfalls.seeding import generator

RANDOM_LENGTH = 8
"""Number of tokens of a random unit."""


def steps(lm: PreTrainedModel, tokenizer: Any, plan: LabPlan) -> Iterator[Step[Any]]:
    """Yield one part per kind of unit: sentences, random tokens, and words of a single token.

    Raises:
        ConfigError: no word of ``units.yaml`` is a single token of this tokenizer.
    """
    n, copies = plan.settings.n_units, plan.settings.copies

    def encoded(texts: Sequence[str]) -> list[list[int]]:
        return [list(tokenizer(text, add_special_tokens=False).input_ids) for text in texts[:n]]

    both = zip(encoded(plan.units.words), encoded([word.strip() for word in plan.units.words]), strict=True)
    words = [next(ids for ids in forms if len(ids) == 1) for forms in both if any(len(ids) == 1 for ids in forms)]
    if not words:
        raise ConfigError(f"units.yaml: words: {plan.units.words[0]!r} and all others are several tokens each; choose others")
    start = [*beginning(tokenizer), *encoded([plan.units.before])[0]]
    sentences = RepeatedUnits("sentence")
    yield Step(sentences, lambda: copy_means(lm, start, encoded(plan.units.sentences), copies))
    random = RepeatedUnits("random")
    yield Step(random, lambda: copy_means(lm, start, random_units(lm, tokenizer, n, plan.settings.seed), copies))
    yield Step(RepeatedUnits("word"), lambda: copy_means(lm, start, words, copies))


def random_units(lm: PreTrainedModel, tokenizer: Any, n: int, seed: int) -> list[list[int]]:
    """Return n units of random tokens. Special tokens are left out, and all others are equally likely."""
    special = set(tokenizer.all_special_ids)
    size = min(len(tokenizer), lm.get_input_embeddings().weight.shape[0])
    ordinary = torch.tensor([i for i in range(size) if i not in special])
    draws = torch.randint(len(ordinary), (n, RANDOM_LENGTH), generator=generator(seed, "probe", 0))
    rows: list[list[int]] = ordinary[draws].tolist()
    return rows


def copy_means(lm: PreTrainedModel, start: Sequence[int], units: Sequence[Sequence[int]], copies: int) -> list[CopyMeans]:
    """Return, for each unit, the means over every copy from the second on.

    Args:
        lm: the model.
        start: tokens before the first copy.
        units: the tokens of each unit.
        copies: number of copies of each unit in its text.
    """
    readings = [reading.since(len(start)) for reading in read(lm, [[*start, *[*unit] * copies] for unit in units])]
    found = []
    for unit, reading in zip(units, readings, strict=True):
        found.append(
            CopyMeans(*(x.reshape(copies, len(unit))[1:].mean(1).tolist() for x in (reading.p, reading.top, reading.entropy)))
        )
    return found
