"""Decoding rules and loops: the share of texts that end in a loop, and the share that leave a formed loop."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from transformers import PreTrainedModel

from pitfalls.language.generation import RULES, Rule
from pitfalls.language.lab_parts import (
    Continuation,
    Ending,
    GreedyText,
    LoopEscapes,
    MapTexts,
    RuleText,
    RuleTexts,
    Step,
    formed_loops,
    just_formed,
    unit_of,
)
from pitfalls.language.lab_settings import LabPlan
from pitfalls.language.repetition import final_loop
from pitfalls.language.writing import write, write_and_read

TAIL = 16
"""Number of last tokens of a text that decide whether it is back in its loop."""


def steps(
    lm: PreTrainedModel,
    plan: LabPlan,
    prompts: Sequence[Sequence[int]],
    greedy: Callable[[], list[GreedyText]],
    end: Ending,
) -> Iterator[Step[Any]]:
    """Yield, per rule, texts from scratch and texts from loops, and at last texts by temperature and penalty.

    The draws of a prompt or loop are neighbours.
    """
    settings = plan.settings
    for rule in RULES:
        draws = settings.draws if rule.samples else 1
        several = [prompt for prompt in prompts for _ in range(draws)]
        yield Step(RuleTexts(rule.name), partial(rule_texts, lm, several, settings.rule_tokens, rule, end, settings.seed))
        tokens = settings.escape_tokens
        yield Step(LoopEscapes(rule.name), partial(escapes, lm, greedy, draws, tokens, rule, end, settings.seed))
    few = prompts[: settings.map_prompts]
    for temperature in settings.temperatures:
        for penalty in settings.penalties:
            rule, key = tempered(temperature, penalty), MapTexts(temperature, penalty)
            yield Step(key, partial(rule_texts, lm, few, settings.map_tokens, rule, end, settings.seed))


def tempered(temperature: float, penalty: float) -> Rule:
    """Return the rule with a temperature and a repetition penalty. Temperature 0 is greedy."""
    sampled = {"do_sample": True, "top_k": 0, "temperature": temperature} if temperature else {}
    return Rule(f"temperature {temperature}, repetition penalty {penalty}", sampled | {"repetition_penalty": penalty})


def escapes(
    lm: PreTrainedModel,
    texts: Callable[[], list[GreedyText]],
    draws: int,
    n_new: int,
    rule: Rule,
    end: Ending,
    seed: int,
) -> list[Continuation]:
    """Return the continuations of each loop, draw by draw, if the rule continues after the third copy."""
    formed = [one for one in formed_loops(texts()) for _ in range(draws)]
    if not formed:
        return []
    continued = write(lm, [just_formed(text, loop) for text, loop in formed], n_new, rule, end, seed)
    return [
        continuation(text.name, unit_of(text, loop), new, text.tokens[: loop.formed])
        for (text, loop), new in zip(formed, continued, strict=True)
    ]


def continuation(name: str, unit: Sequence[int], new: Sequence[int], before: Sequence[int]) -> Continuation:
    """Return the continuation of a loop.

    Args:
        name: name of the prompt.
        unit: tokens that the loop repeats.
        new: tokens after its third copy.
        before: tokens of the text up to the end of that copy.
    """
    kept = next((i for i, token in enumerate(new) if token != unit[i % len(unit)]), None)
    back = _inside(new[-TAIL:], unit)
    return Continuation(name, kept, escaped=kept is not None and not back and final_loop([*before, *new]) is None)


def _inside(tail: Sequence[int], unit: Sequence[int]) -> bool:
    """Return whether the tail is a stretch of the repeated unit, from any place of the unit on."""
    n = len(unit)
    return any(all(token == unit[(turn + i) % n] for i, token in enumerate(tail)) for turn in range(n))


def rule_texts(
    lm: PreTrainedModel, prompts: Sequence[Sequence[int]], n_new: int, rule: Rule, end: Ending, seed: int
) -> list[RuleText]:
    """Return the text of n_new tokens that a rule writes after each prompt, with its surprisal."""
    texts, readings = write_and_read(lm, prompts, n_new, rule, end, seed)
    return [RuleText(text, -reading.log_p.mean().item()) for text, reading in zip(texts, readings, strict=True)]
