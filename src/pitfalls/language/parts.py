"""What the parts of a lab hold, as several summaries ask for it."""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from pitfalls.language.repetition import Loop, final_loop

Parts = Mapping[str, Any]
"""By name, as `Lab.run` gives them."""
NOISE = math.log(1000)
"""Nats per token: a text is noise if its tokens are less expected than one of a thousand that are equally likely."""


def looping(texts: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], Loop]]:
    """Texts that end in a loop, with it."""
    return [(text, loop) for text in texts if (loop := final_loop(text["tokens"])) is not None]


def by_draw(rows: Sequence[Any], draws: int) -> list[Sequence[Any]]:
    """By prompt (or loop): what each draw gave."""
    return [rows[i : i + draws] for i in range(0, len(rows), draws)]


def rule_names(parts: Parts) -> list[str]:
    """Decoding rules, in order."""
    return list(dict.fromkeys(name.split("/")[1] for name in parts if name.startswith("rules/")))


def kind_of(text: Mapping[str, Any]) -> str:
    """``loop``, ``noise`` or ``text``."""
    if final_loop(text["tokens"]) is not None:
        return "loop"
    return "noise" if text["surprisal"] > NOISE else "text"


def without_heads(parts: Parts, what: str, kind: str, n: int, values: Callable[[Any], Sequence[float]]) -> list[float]:
    """By loop, text or prompt: the mean over the draws of a set of heads."""
    draws = [values(part) for name, part in parts.items() if name.startswith(f"heads/{what}/{kind}/{n}/")]
    return [fmean(row) for row in zip(*draws, strict=True)]
