"""The text that a model writes after a prompt, and its predictions at each token of that text."""

from collections.abc import Sequence

from transformers import PreTrainedModel

from pitfalls.language.generation import RULES, Rule, end_tokens, generate, generate_with_logits
from pitfalls.language.lab_parts import Ending, GreedyText
from pitfalls.language.lab_settings import LabPlan
from pitfalls.language.reading import TextReading, padded, read, reading_of_logits

GREEDY = RULES[0]
MAX_LOGITS = 2**29
"""Largest number of logits (2 GiB) held while texts are written. With a large vocabulary, fewer texts are written at a time."""


def write(
    lm: PreTrainedModel, prompts: Sequence[Sequence[int]], n_new: int, rule: Rule, end: Ending, seed: int = 0
) -> list[list[int]]:
    """Return the n_new tokens that the model writes after each prompt."""
    tokens, mask = padded(prompts, "left")
    device = lm.device
    return generate(lm, tokens.to(device), n_new, rule, seed=seed, attention_mask=mask.to(device), end=end).tolist()


def write_and_read(
    lm: PreTrainedModel, prompts: Sequence[Sequence[int]], n_new: int, rule: Rule, end: Ending, seed: int = 0
) -> tuple[list[list[int]], list[TextReading]]:
    """Return the tokens of `write`, and the model's own predictions at each of them."""
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
        found += [reading_of_logits(row.cpu().log_softmax(1), text, end_tokens(lm)) for row, text in rows]
        texts += new.tolist()
    return texts, found


def greedy_texts(lm: PreTrainedModel, plan: LabPlan, prompts: Sequence[Sequence[int]], end: Ending) -> list[GreedyText]:
    """Return one greedy text per prompt, with its reading."""
    texts, readings = write_and_read(lm, prompts, plan.settings.loop_tokens, GREEDY, end)
    return [
        GreedyText(
            name=prompt.name,
            style=prompt.style,
            prompt=list(start),
            tokens=text,
            p=reading.p.tolist(),
            entropy=reading.entropy.tolist(),
            top=reading.top.tolist(),
            end=reading.end.tolist(),
        )
        for prompt, start, text, reading in zip(plan.prompts, prompts, texts, readings, strict=True)
    ]
