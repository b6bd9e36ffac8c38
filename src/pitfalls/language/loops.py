"""Greedy texts, and what the model expected at each of their tokens: loops are looked for in them, and what leads up to these."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel

from pitfalls.language.generation import RULES, Rule, end_tokens, generate, generate_with_logits
from pitfalls.language.reading import Reading, of_logits, read
from pitfalls.language.repetition import Loop, final_loop
from pitfalls.language.settings import LabPlan, padded

GREEDY = RULES[0]
MAX_LOGITS = 2**29
"""Numbers (2 GiB) that are held while texts are written: a large vocabulary is written with fewer texts at a time."""


def write(
    lm: PreTrainedModel, prompts: Sequence[Sequence[int]], n_new: int, rule: Rule, end: str, seed: int = 0
) -> list[list[int]]:
    """What the model goes on with after each prompt, n_new tokens."""
    tokens, mask = padded(prompts, "left")
    device = lm.device
    return generate(lm, tokens.to(device), n_new, rule, seed=seed, attention_mask=mask.to(device), end=end).tolist()


def write_and_read(
    lm: PreTrainedModel, prompts: Sequence[Sequence[int]], n_new: int, rule: Rule, end: str, seed: int = 0
) -> tuple[list[list[int]], list[Reading]]:
    """As `write`, with what the model itself expected at each new token."""
    if rule.options.get("num_beams", 1) > 1:
        texts = write(lm, prompts, n_new, rule, end, seed)
        readings = read(lm, [[*prompt, *text] for prompt, text in zip(prompts, texts, strict=True)])
        return texts, [reading.since(len(prompt)) for prompt, reading in zip(prompts, readings, strict=True)]
    size = lm.get_input_embeddings().weight.shape[0]
    most = max(1, MAX_LOGITS // (n_new * size))
    texts, found = [], []
    for start in range(0, len(prompts), most):
        tokens, mask = (x.to(lm.device) for x in padded(prompts[start : start + most], "left"))
        new, logits = generate_with_logits(lm, tokens, n_new, rule, seed=seed + start, attention_mask=mask, end=end)
        rows = zip(logits, new.cpu(), strict=True)
        found += [of_logits(row.cpu().log_softmax(1), text, end_tokens(lm)) for row, text in rows]
        texts += new.tolist()
    return texts, found


def written(lm: PreTrainedModel, plan: LabPlan, prompts: Sequence[Sequence[int]], end: str) -> list[dict[str, Any]]:
    """One greedy text per prompt, with its reading; end-of-text is banned ("ban"), or written like any token ("ignore")."""
    texts, readings = write_and_read(lm, prompts, plan.settings.loop_tokens, GREEDY, end)
    return [
        {"name": prompt.name, "style": prompt.style, "prompt": start, "tokens": text, **as_lists(reading)}
        for prompt, start, text, reading in zip(plan.prompts, prompts, texts, readings, strict=True)
    ]


def as_lists(reading: Reading) -> dict[str, list[float]]:
    """For JSON."""
    return {name: getattr(reading, name).tolist() for name in ("p", "entropy", "top", "end")}


def formed_loops(texts: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], Loop]]:
    """The texts that end in a loop, with it."""
    return [(text, loop) for text in texts if (loop := final_loop(text["tokens"])) is not None]


def just_formed(text: dict[str, Any], loop: Loop) -> list[int]:
    """Prompt and text up to where the third copy is complete."""
    return [*text["prompt"], *text["tokens"][: loop.formed]]


def unit(text: dict[str, Any], loop: Loop) -> list[int]:
    """What the loop repeats, from its first copy."""
    return list(text["tokens"][loop.start : loop.start + loop.period])
