"""The measures that decide about the beliefs of ``conf/degeneration/claims.yaml``, from a lab's measurements and record."""

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean

from msgspec import UNSET

from pitfalls.language.estimates import mean, share
from pitfalls.language.lab_parts import (
    ContextLengths,
    GreedyText,
    HeadReadings,
    LayerAreas,
    LengthRow,
    Parts,
    RepeatedUnits,
    RepetitionSign,
    RuleTexts,
    by_draw,
    formed_loops,
    mean_over_draws,
)
from pitfalls.language.lab_record import Estimate, LabRecord
from pitfalls.language.lab_settings import SHORT
from pitfalls.language.repetition import MIN_COPIES, Loop

RISES = 4
"""Number of steps from one copy to the next that are compared, from the second copy on."""
TOP_P, PENALTY = "top-p 0.9", "repetition penalty 1.2"


def belief_measures(parts: Parts, texts: Sequence[GreedyText], record: LabRecord) -> dict[str, Estimate]:
    """Return the measures that the beliefs name. A measure without values is left out."""
    formed = formed_loops(texts)
    sentences = parts[RepeatedUnits("sentence")]
    rules = {row.rule: row for row in record.rules}
    end_near = record.onset.end_near
    found = {
        "greedy_loops": record.loops[record.ending].rate,
        "loop_entropy_ratio": mean(_entropy_ratio(text, loop) for text, loop in formed),
        "copies_raise": share(fmean(b > a for a, b in pairwise(unit.p[: RISES + 1])) for unit in sentences),
        "after_three_copies": mean(unit.p[MIN_COPIES - 1] for unit in sentences),
        "one_token_loops": share(loop.period == 1 for _, loop in formed),
        "end_near_onset": None if end_near is UNSET else end_near,
        "entropy_spike": record.onset.spike,
        "top_p_escapes": rules[TOP_P].escapes,
        "penalty_escapes": rules[PENALTY].escapes,
        "sign_over_position": _sign_over_position(parts[RepetitionSign()]),
        "heads_drive": _heads_drive(parts),
        "context_gain": mean(_context_gain(parts[ContextLengths(topic)]) for topic in record.settings.topics),
        "tail_correlation": record.tail.correlation,
        "low_collapse": _low_collapse(parts, len(texts)),
    }
    return {name: value for name, value in found.items() if value is not None}


def _entropy_ratio(text: GreedyText, loop: Loop) -> float | None:
    """Return the ratio of the mean entropy from the fourth copy on to that before the first, or None if one is missing."""
    inside, before = text.entropy[loop.formed : loop.end], text.entropy[: loop.start]
    return fmean(inside) / fmean(before) if inside and before and fmean(before) else None


def _sign_over_position(rows: Sequence[LayerAreas]) -> Estimate | None:
    """Return the area under the ROC curve at the middle layer minus that of the positions, over prompts."""
    layers = [row for row in rows if row.layer is not None]
    position = next(row for row in rows if row.layer is None)
    middle = layers[len(layers) // 2]
    return mean(a - b for a, b in zip(middle.auc, position.auc, strict=True) if a is not None and b is not None)


def _heads_drive(parts: Parts) -> Estimate | None:
    """Return how much more a copy's probability falls without the strongest heads than without random ones, over loops.

    Both sets have the middle one of the tested sizes.
    """
    sizes = sorted({key.n for key in parts.keys(HeadReadings) if key.choice == "strongest"})
    if not sizes:
        return None
    n = sizes[len(sizes) // 2]
    strongest, others = (
        mean_over_draws([parts[key].loops for key in parts.keys(HeadReadings) if (key.choice, key.n) == (choice, n)])
        for choice in ("strongest", "random")
    )
    return mean(b - a for a, b in zip(strongest, others, strict=True))


def _context_gain(rows: Sequence[LengthRow]) -> float:
    """Return the cross-entropy after `SHORT` tokens minus that after the longest context, in nats."""
    short = next(row for row in rows if row.length == SHORT)
    return fmean(short.nll) - fmean(rows[0].nll)


def _low_collapse(parts: Parts, n_prompts: int) -> Estimate | None:
    """Return, over prompts, the share of loops among those texts (by all rules) that loop or are noise."""
    kinds: list[list[str]] = [[] for _ in range(n_prompts)]
    for key in parts.keys(RuleTexts):
        texts = parts[key]
        for found, of_prompt in zip(kinds, by_draw(texts, len(texts) // n_prompts), strict=True):
            found += [kind for text in of_prompt if (kind := text.kind) != "text"]
    return share(fmean(kind == "loop" for kind in found) for found in kinds if found)
