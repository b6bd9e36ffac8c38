"""The numbers that the ledger of beliefs asks for (``conf/degeneration/claims.yaml``), from the parts and the record of a lab."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any

from pitfalls.language.estimates import Estimate, mean, share
from pitfalls.language.parts import Parts, by_draw, kind_of, looping, rule_names, without_heads
from pitfalls.language.repetition import MIN_COPIES, Loop
from pitfalls.language.settings import SHORT, LabPlan

RISES = 4
"""Steps from one copy to the next, from the second copy on, that are looked at."""
TOP_P, PENALTY = "top-p 0.9", "repetition penalty 1.2"


def measures(parts: Parts, texts: Sequence[Mapping[str, Any]], record: Mapping[str, Any], plan: LabPlan) -> dict[str, Estimate]:
    """What the ledger asks for; what could not be measured is not there."""
    formed = looping(texts)
    sentences = parts["units/sentence"]
    rules = {row["rule"]: row for row in record["rules"]}
    found = {
        "greedy_loops": record["loops"][record["ending"]]["rate"],
        "loop_entropy_ratio": mean(_entropy_ratio(text, loop) for text, loop in formed),
        "copies_raise": share(fmean(b > a for a, b in pairwise(unit["p"][: RISES + 1])) for unit in sentences),
        "after_three_copies": mean(unit["p"][MIN_COPIES - 1] for unit in sentences),
        "one_token_loops": share(loop.period == 1 for _, loop in formed),
        "end_near_onset": record["onset"].get("end_near"),
        "entropy_spike": record["onset"]["spike"],
        "top_p_escapes": rules[TOP_P]["escapes"],
        "penalty_escapes": rules[PENALTY]["escapes"],
        "sign_over_position": _sign_over_position(parts["sign"]),
        "heads_drive": _heads_drive(parts),
        "context_gain": mean(_context_gain(parts[f"context/{name}"]) for name in plan.settings.topics),
        "tail_correlation": record["tail"]["correlation"],
        "low_collapse": _low_collapse(parts, len(texts)),
    }
    return {name: value for name, value in found.items() if value is not None}


def _entropy_ratio(text: Mapping[str, Any], loop: Loop) -> float | None:
    """Mean entropy from the fourth copy on, over that before the first."""
    inside, before = text["entropy"][loop.formed : loop.end], text["entropy"][: loop.start]
    return fmean(inside) / fmean(before) if inside and before and fmean(before) else None


def _sign_over_position(rows: Sequence[Mapping[str, Any]]) -> Estimate | None:
    """By prompt: the area under the curve at the middle layer less that of positions."""
    layers = [row for row in rows if row["layer"] is not None]
    position = next(row for row in rows if row["layer"] is None)
    middle = layers[len(layers) // 2]
    return mean(a - b for a, b in zip(middle["auc"], position["auc"], strict=True) if a is not None and b is not None)


def _heads_drive(parts: Parts) -> Estimate | None:
    """By loop: how much more its next copy's probability falls without the strongest heads than without others, middle size."""
    sizes = sorted({int(name.split("/")[3]) for name in parts if name.startswith("heads/read/strongest/")})
    if not sizes:
        return None
    n = sizes[len(sizes) // 2]
    strongest, others = (without_heads(parts, "read", kind, n, lambda part: part["loops"]) for kind in ("strongest", "random"))
    return mean(b - a for a, b in zip(strongest, others, strict=True))


def _context_gain(rows: Sequence[Mapping[str, Any]]) -> float:
    """Cross-entropy after `SHORT` tokens less that after the longest context, nats."""
    short = next(row for row in rows if row["length"] == SHORT)
    return fmean(short["nll"]) - fmean(rows[0]["nll"])


def _low_collapse(parts: Parts, n_prompts: int) -> Estimate | None:
    """By prompt: of its texts by all rules that loop or are noise, the share that loop."""
    kinds: list[list[str]] = [[] for _ in range(n_prompts)]
    for rule in rule_names(parts):
        texts = parts[f"rules/{rule}"]
        for found, of_prompt in zip(kinds, by_draw(texts, len(texts) // n_prompts), strict=True):
            found += [kind for text in of_prompt if (kind := kind_of(text)) != "text"]
    return share(fmean(kind == "loop" for kind in found) for found in kinds if found)
