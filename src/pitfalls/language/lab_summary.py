"""The record of a lab from its parts. Every number has a 95 % interval, over prompts, units, loops or topics.

Shares have Wilson intervals, and several draws of a prompt count as one value. Means have bootstrap intervals.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from statistics import fmean

import numpy as np
from msgspec import structs
from scipy.stats import spearmanr

from pitfalls.language.belief_measures import belief_measures
from pitfalls.language.estimates import mean, share, sure_mean
from pitfalls.language.lab_parts import (
    NOISE,
    Choice,
    ContextLengths,
    CopyMeans,
    Ending,
    GreedyText,
    GreedyTexts,
    HeadReadings,
    HeadScores,
    HeadTexts,
    LengthRow,
    LoopEscapes,
    LoopInContext,
    LoopsInContext,
    MapTexts,
    Parts,
    RepeatedUnits,
    RepetitionSign,
    RuleTexts,
    TailMass,
    TailMasses,
    by_draw,
    formed_loops,
    mean_over_draws,
)
from pitfalls.language.lab_record import (
    ContextRow,
    CopyRow,
    CopySummary,
    HeadRow,
    HeadSummary,
    LabOrigin,
    LabRecord,
    LoopContextRow,
    LoopSummary,
    MapRow,
    Means,
    OnsetPoint,
    OnsetSummary,
    RuleRow,
    ScoredHead,
    SignRow,
    Strip,
    TailBin,
    TailSummary,
    UnitRow,
)
from pitfalls.language.lab_settings import STYLES, LabPlan
from pitfalls.language.repetition import Loop, distinct, final_loop, find_loops, repeated

NEAR = 8
"""Largest distance in tokens from a loop's start that counts as near it."""
MAX_COPIES = 10
SURE = 0.5
"""Probability of end-of-text from which on the model counts as wanting to stop."""
N_BINS = 8
READ = ("p", "top", "entropy")


def summarise(origin: LabOrigin, parts: Parts, plan: LabPlan, decode: Callable[[Sequence[int]], list[str]]) -> LabRecord:
    """Return the record of a finished lab: all numbers for tables, figures, the page and the beliefs.

    Args:
        origin: everything that the numbers depend on.
        parts: the parts of a finished lab.
        plan: the plan that it followed.
        decode: a function that turns tokens into texts, one text per token.
    """
    endings: list[Ending] = [key.ending for key in parts.keys(GreedyTexts)]
    main: Ending = "ban" if "ban" in endings else "ignore"
    texts = parts[GreedyTexts(main)]
    topics = plan.settings.topics
    record = LabRecord(
        **structs.asdict(origin),
        ending=main,
        loops={end: _loops(parts[GreedyTexts(end)]) for end in endings},
        copies=_copies(texts),
        onset=_onset(texts, plan.settings.window, has_end="ban" in endings),
        units={key.unit: _units(parts[key]) for key in parts.keys(RepeatedUnits)},
        rules=_rules(parts, len(texts)),
        map=_map(parts),
        context=_context([parts[ContextLengths(topic)] for topic in topics]),
        context_of_loops=_context_of_loops(parts[LoopsInContext()], plan.settings.context_lengths),
        tail=_tail([parts[TailMasses(topic)] for topic in topics]),
        sign=[SignRow(row.layer, mean(row.auc)) for row in parts[RepetitionSign()]],
        heads=_heads(parts, texts),
        strips=[_strip(text, decode) for text in _shown(texts)],
        measures={},
    )
    return structs.replace(record, measures=belief_measures(parts, texts, record))


def _loops(texts: Sequence[GreedyText]) -> LoopSummary:
    """Return the share of texts that end in a loop, and places and lengths of the loops in tokens."""
    finals = [final_loop(text.tokens) for text in texts]
    every = [[loop.end < len(text.tokens) for loop in _outermost(find_loops(text.tokens))] for text in texts]
    pairs = list(zip(finals, texts, strict=True))
    styles = {style: [final for final, text in pairs if text.style == style] for style in STYLES}
    return LoopSummary(
        rate=share(loop is not None for loop in finals),
        by_style={style: share(loop is not None for loop in of_one) for style, of_one in styles.items()},
        start=mean(loop.start for loop in finals if loop),
        period=sorted(loop.period for loop in finals if loop),
        formed=sorted(loop.formed for loop in finals if loop),
        found=sum(map(len, every)),
        ended=share(fmean(left) for left in every if left),
        tokens=len(texts[0].tokens),
    )


def _outermost(loops: Sequence[Loop]) -> list[Loop]:
    """Return the loops that do not lie within the unit of another loop."""
    return [
        loop for loop in loops if not any(o.start <= loop.start and loop.end <= o.end and o.period > loop.period for o in loops)
    ]


def _copies(texts: Sequence[GreedyText]) -> CopySummary:
    """Return the means by copy of a greedy loop, and over the text before the loop."""
    formed = formed_loops(texts)
    rows = []
    for copy in range(1, MAX_COPIES + 1):
        spans = [(text, loop.start + (copy - 1) * loop.period, loop.start + copy * loop.period, loop) for text, loop in formed]
        whole = [(text, a, b) for text, a, b, loop in spans if b <= loop.end]
        if whole:
            rows.append(CopyRow(copy, *(sure_mean(fmean(getattr(text, name)[a:b]) for text, a, b in whole) for name in READ)))
    before = Means(*(mean(_before(getattr(text, name), loop) for text, loop in formed) for name in READ))
    return CopySummary(before, rows)


def _before(values: Sequence[float], loop: Loop) -> float | None:
    """Return the mean over the text before the first copy, or None if there is none."""
    return fmean(values[: loop.start]) if loop.start else None


def _onset(texts: Sequence[GreedyText], window: int, has_end: bool) -> OnsetSummary:
    """Return the entropy in the window before a loop's first copy, and how often the model wants to stop near it."""
    formed = formed_loops(texts)
    curve = [
        OnsetPoint(
            offset,
            entropy=mean(_at(text.entropy, loop.start + offset) for text, loop in formed),
            end=mean(_at(text.end, loop.start + offset) for text, loop in formed),
        )
        for offset in range(-window, window + 1)
    ]
    spike = mean(_spike(text.entropy, loop.start, window) for text, loop in formed)
    if not has_end:
        return OnsetSummary(curve, spike)
    near = [text.end[max(0, loop.start - NEAR) : loop.start + NEAR] for text, loop in formed]
    elsewhere = mean(_end_elsewhere(text.end, loop.start) for text, loop in formed)
    return OnsetSummary(curve, spike, share(max(stretch) >= SURE for stretch in near), elsewhere)


def _at(values: Sequence[float], place: int) -> float | None:
    return values[place] if 0 <= place < len(values) else None


def _spike(entropy: Sequence[float], start: int, window: int) -> float | None:
    """Return the mean entropy of the window before a loop minus that of the text before the window, or None without such text."""
    if start < 2 * window:
        return None
    return fmean(entropy[start - window : start]) - fmean(entropy[: start - window])


def _end_elsewhere(end: Sequence[float], start: int) -> float | None:
    """Return the share of stretches before the start in which the model wanted to stop.

    Each stretch is as long as the one near the start. The result is None if the text before is too short for one.
    """
    stretches = [end[i : i + 2 * NEAR] for i in range(0, start - 3 * NEAR)]
    return fmean(max(stretch) >= SURE for stretch in stretches) if stretches else None


def _units(units: Sequence[CopyMeans]) -> list[UnitRow]:
    """Return the means by the number of earlier copies."""
    n = len(units[0].p)
    return [UnitRow(k + 1, *(sure_mean(getattr(unit, name)[k] for unit in units) for name in READ)) for k in range(n)]


def _rules(parts: Parts, n_prompts: int) -> list[RuleRow]:
    """Return one row per decoding rule."""
    rows = []
    for key in parts.keys(RuleTexts):
        texts = parts[key]
        draws = len(texts) // n_prompts
        written, continued = by_draw(texts, draws), by_draw(parts[LoopEscapes(key.rule)], draws)
        rows.append(
            RuleRow(
                rule=key.rule,
                loops=share(fmean(final_loop(text.tokens) is not None for text in of_prompt) for of_prompt in written),
                escapes=share(fmean(one.escaped for one in of_loop) for of_loop in continued),
                leaves=share(fmean(one.left_after is not None for one in of_loop) for of_loop in continued),
                rep_4=mean(fmean(repeated(text.tokens, 4) for text in of_prompt) for of_prompt in written),
                distinct_2=distinct([text.tokens for text in texts], 2),
                surprisal=mean(fmean(text.surprisal for text in of_prompt) for of_prompt in written),
                noise=share(fmean(text.surprisal > NOISE for text in of_prompt) for of_prompt in written),
            )
        )
    return rows


def _map(parts: Parts) -> list[MapRow]:
    """Return, by temperature and penalty, the shares of texts that loop, that are noise, and that are neither."""
    rows = []
    for key in parts.keys(MapTexts):
        texts = parts[key]
        kinds = [text.kind for text in texts]
        rows.append(
            MapRow(
                temperature=key.temperature,
                penalty=key.penalty,
                n=len(texts),
                loop=kinds.count("loop") / len(kinds),
                text=kinds.count("text") / len(kinds),
                noise=kinds.count("noise") / len(kinds),
                surprisal=mean(text.surprisal for text in texts),
            )
        )
    return rows


def _context(topics: Sequence[Sequence[LengthRow]]) -> list[ContextRow]:
    """Return one row per length of context, the shortest first. The windows of a topic are one value."""
    rows = zip(*(reversed(topic) for topic in topics), strict=True)
    names = ("nll", "entropy", "kl", "agreement")
    return [
        ContextRow(of_length[0].length, *(sure_mean(fmean(getattr(topic, name)) for topic in of_length) for name in names))
        for of_length in rows
    ]


def _context_of_loops(loops: Sequence[LoopInContext], lengths: Sequence[int]) -> list[LoopContextRow]:
    """Return one row per length of context. Only lengths that every loop has are used, so all rows are about the same loops."""
    shared = [n for n in lengths if all(n in loop.p for loop in loops)]
    return [LoopContextRow(n, sure_mean(loop.p[n] for loop in loops)) for n in shared if loops]


def _tail(topics: Sequence[TailMass]) -> TailSummary:
    """Return how entropy and the mass of the tail are related: rank correlation by topic, and the tail in bins of equal size."""
    pairs = np.array(sorted(chain(*(zip(topic.entropy, topic.tail, strict=True) for topic in topics))))
    size = max(1, len(pairs) // N_BINS)
    groups = [pairs[i : i + size] for i in range(0, min(len(pairs), size * N_BINS), size)]
    bins = [
        TailBin(
            entropy=fmean(group[:, 0]),
            tail=fmean(group[:, 1]),
            tails=np.quantile(group[:, 1], (0.1, 0.5, 0.9), method="nearest").tolist(),
        )
        for group in groups
    ]
    return TailSummary(mean(rank_correlation(topic.entropy, topic.tail) for topic in topics), len(pairs), bins)


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Return Spearman's rank correlation, or 0 if one side is constant."""
    return float(spearmanr(x, y).statistic) if len(set(x)) > 1 and len(set(y)) > 1 else 0.0


def _heads(parts: Parts, texts: Sequence[GreedyText]) -> HeadSummary | None:
    """Return the effect of silencing heads, or None if the model has no heads that can be observed."""
    if HeadScores() not in parts:
        return None
    scores = parts[HeadScores()]
    ranked = sorted(((score, layer, head) for layer, row in enumerate(scores) for head, score in enumerate(row)), reverse=True)
    sets: dict[tuple[int, Choice], list[HeadReadings]] = {}
    for key in parts.keys(HeadReadings):
        sets.setdefault((key.n, key.choice), []).append(key)
    rows = []
    for (n, choice), draws in sorted(sets.items(), key=lambda item: item[0][0]):
        written = [
            [final_loop(text) is not None for text in parts[t]] for t in parts.keys(HeadTexts) if (t.n, t.choice) == (n, choice)
        ]
        if n == 0:
            written = [[final_loop(text.tokens) is not None for text in texts]]
        rows.append(
            HeadRow(
                kind=choice,
                n=n,
                loops=mean(mean_over_draws([parts[key].loops for key in draws])),
                prose=mean(mean_over_draws([parts[key].prose for key in draws])),
                written=share(mean_over_draws(written)),
            )
        )
    return HeadSummary(len(ranked), rows, [ScoredHead(layer, head, score) for score, layer, head in ranked[:10]])


def _shown(texts: Sequence[GreedyText]) -> list[GreedyText]:
    """Return, for each style, the first text that loops and the first that does not."""
    chosen: dict[tuple[str, bool], GreedyText] = {}
    for text in texts:
        chosen.setdefault((text.style, final_loop(text.tokens) is None), text)
    return list(chosen.values())


def _strip(text: GreedyText, decode: Callable[[Sequence[int]], list[str]]) -> Strip:
    """Return a text for the report, up to a few copies after its final loop has formed."""
    loop = final_loop(text.tokens)
    n = len(text.tokens) if loop is None else min(len(text.tokens), max(loop.formed + 2 * loop.period, loop.start + 60))
    inside = [loop.copy_of(i) if loop and i >= loop.start else 0 for i in range(n)]
    return Strip(text.name, text.style, decode(text.tokens[:n]), inside, text.entropy[:n], text.p[:n], text.end[:n])
