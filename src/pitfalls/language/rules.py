"""Decoding rules, and loops: how many texts end in one, and how many leave one that has formed."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from transformers import PreTrainedModel

from pitfalls.language.generation import RULES, Rule
from pitfalls.language.loops import formed_loops, just_formed, unit, write, write_and_read
from pitfalls.language.repetition import final_loop
from pitfalls.language.settings import LabPlan

Texts = list[dict[str, Any]]
TAIL = 16
"""Tokens at the end of a text that tell whether it is back in its loop."""


def steps(
    lm: PreTrainedModel, plan: LabPlan, prompts: Sequence[Sequence[int]], greedy: Callable[[], Texts], end: str
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Per rule: texts from scratch, and from loops, the draws of a prompt or loop side by side; then the map."""
    settings = plan.settings
    for rule in RULES:
        draws = settings.draws if rule.samples else 1
        several = [prompt for prompt in prompts for _ in range(draws)]
        yield f"rules/{rule.name}", partial(judged, lm, several, settings.rule_tokens, rule, end, settings.seed)
        yield f"escapes/{rule.name}", partial(escapes, lm, greedy, draws, settings.escape_tokens, rule, end, settings.seed)
    for temperature in settings.temperatures:
        for penalty in settings.penalties:
            rule = tempered(temperature, penalty)
            few = prompts[: settings.map_prompts]
            yield f"map/{temperature}/{penalty}", partial(judged, lm, few, settings.map_tokens, rule, end, settings.seed)


def tempered(temperature: float, penalty: float) -> Rule:
    """A cell of the map; temperature 0 is greedy."""
    sampled = {"do_sample": True, "top_k": 0, "temperature": temperature} if temperature else {}
    return Rule(f"temperature {temperature}, repetition penalty {penalty}", sampled | {"repetition_penalty": penalty})


def escapes(
    lm: PreTrainedModel, texts: Callable[[], Texts], draws: int, n_new: int, rule: Rule, end: str, seed: int
) -> list[dict[str, Any]]:
    """By text that ended in a loop, and draw: what becomes of it if the rule goes on from its third copy."""
    formed = [one for one in formed_loops(texts()) for _ in range(draws)]
    if not formed:
        return []
    continued = write(lm, [just_formed(text, loop) for text, loop in formed], n_new, rule, end, seed)
    return [
        {"name": text["name"], **became(unit(text, loop), new, text["tokens"][: loop.formed])}
        for (text, loop), new in zip(formed, continued, strict=True)
    ]


def became(repeated: Sequence[int], new: Sequence[int], before: Sequence[int]) -> dict[str, Any]:
    """How a loop went on.

    Args:
        repeated: its unit.
        new: the tokens after its third copy.
        before: the text up to there.

    Returns:
        ``left_after``: new tokens that kept to it (None if all did); ``escaped``: it was left, and the text does not end in a
        loop, this one or another.
    """
    kept = next((i for i, token in enumerate(new) if token != repeated[i % len(repeated)]), None)
    whole = [*before, *new]
    back = _inside(new[-TAIL:], repeated)
    return {"left_after": kept, "escaped": kept is not None and not back and final_loop(whole) is None}


def _inside(tail: Sequence[int], repeated: Sequence[int]) -> bool:
    """Whether the tail is a stretch of the unit again and again."""
    n = len(repeated)
    return any(all(token == repeated[(turn + i) % n] for i, token in enumerate(tail)) for turn in range(n))


def judged(
    lm: PreTrainedModel, prompts: Sequence[Sequence[int]], n_new: int, rule: Rule, end: str, seed: int
) -> list[dict[str, Any]]:
    """By prompt: the text, and its mean surprisal in nats under the model itself (temperature 1, no penalty)."""
    texts, readings = write_and_read(lm, prompts, n_new, rule, end, seed)
    return [{"tokens": text, "surprisal": -reading.log_p.mean().item()} for text, reading in zip(texts, readings, strict=True)]
