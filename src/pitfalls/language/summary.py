"""From the parts of a lab to its record: every number with an interval at 95 %, over prompts, units, loops or topics.

Shares have Wilson intervals (several draws of a prompt count as one), means bootstrap intervals.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from pitfalls.language.belief_measures import measures
from pitfalls.language.estimates import mean, quantiles, share, spearman
from pitfalls.language.parts import NOISE, Parts, by_draw, kind_of, looping, rule_names, without_heads
from pitfalls.language.repetition import Loop, distinct, final_loop, find_loops, repeated
from pitfalls.language.settings import STYLES, LabPlan

NEAR = 8
"""Tokens to either side of a loop's start that are near it."""
MAX_COPIES = 10
SURE = 0.5
N_BINS = 8
READ = ("p", "top", "entropy")


def summarise(parts: Parts, plan: LabPlan, decode: Callable[[Sequence[int]], list[str]]) -> dict[str, Any]:
    """Everything that tables, figures, the page and the ledger need.

    Args:
        parts: of a finished lab.
        plan: that it followed.
        decode: tokens as text, one by one.
    """
    main = "ban" if "loops/ban" in parts else "ignore"
    texts = parts[f"loops/{main}"]
    record = {
        "ending": main,
        "loops": {end: _loops(parts[f"loops/{end}"]) for end in ("ban", "ignore") if f"loops/{end}" in parts},
        "copies": _copies(texts),
        "onset": _onset(texts, plan.settings.window, has_end="loops/ban" in parts),
        "units": {kind: _units(parts[f"units/{kind}"]) for kind in ("sentence", "random", "word")},
        "rules": _rules(parts, texts),
        "map": _map(parts, plan),
        "context": _context([parts[f"context/{name}"] for name in plan.settings.topics]),
        "context_of_loops": _context_of_loops(parts["context-of-loops"], plan.settings.context_lengths),
        "tail": _tail([parts[f"tail/{name}"] for name in plan.settings.topics]),
        "sign": [{"layer": row["layer"], "auc": mean(row["auc"])} for row in parts["sign"]],
        "heads": _heads(parts, texts),
        "strips": [_strip(text, decode) for text in _shown(texts)],
    }
    return record | {"measures": measures(parts, texts, record, plan)}


def _loops(texts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many texts end in a loop, and what the loops are like; numbers of tokens."""
    finals = [final_loop(text["tokens"]) for text in texts]
    every = [[loop.end < len(text["tokens"]) for loop in _outermost(find_loops(text["tokens"]))] for text in texts]
    pairs = list(zip(finals, texts, strict=True))
    styles = {style: [final for final, text in pairs if text["style"] == style] for style in STYLES}
    return {
        "rate": share(loop is not None for loop in finals),
        "by_style": {style: share(loop is not None for loop in of_one) for style, of_one in styles.items()},
        "start": mean(loop.start for loop in finals if loop),
        "period": sorted(loop.period for loop in finals if loop),
        "formed": sorted(loop.formed for loop in finals if loop),
        "found": sum(map(len, every)),
        "ended": share(fmean(left) for left in every if left),
        "tokens": len(texts[0]["tokens"]),
    }


def _outermost(loops: Sequence[Loop]) -> list[Loop]:
    """Without those that stand within the unit of another."""
    return [
        loop for loop in loops if not any(o.start <= loop.start and loop.end <= o.end and o.period > loop.period for o in loops)
    ]


def _copies(texts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By copy of a greedy loop, and over the text before it: probability of the tokens, of the likeliest one, entropy."""
    formed = looping(texts)
    rows = []
    for copy in range(1, MAX_COPIES + 1):
        spans = [(text, loop.start + (copy - 1) * loop.period, loop.start + copy * loop.period, loop) for text, loop in formed]
        whole = [(text, a, b) for text, a, b, loop in spans if b <= loop.end]
        rows.append({"copy": copy} | {name: mean(fmean(text[name][a:b]) for text, a, b in whole) for name in READ})
    before = {name: mean(_before(text, loop, name) for text, loop in formed) for name in READ}
    return {"before": before, "rows": [row for row in rows if row["p"]]}


def _before(text: Mapping[str, Any], loop: Loop, name: str) -> float | None:
    """Mean over the text before the first copy."""
    return fmean(text[name][: loop.start]) if loop.start else None


def _onset(texts: Sequence[Mapping[str, Any]], window: int, has_end: bool) -> dict[str, Any]:
    """What precedes a loop: entropy in the window before its first copy, and the wish to stop near it, beside the rest before."""
    formed = looping(texts)
    offsets = range(-window, window + 1)
    curve = [
        {"offset": o, **{name: mean(_at(text, loop.start + o, name) for text, loop in formed) for name in ("entropy", "end")}}
        for o in offsets
    ]
    spikes = [_spike(text["entropy"], loop.start, window) for text, loop in formed]
    found: dict[str, Any] = {"curve": curve, "spike": mean(spikes)}
    if has_end:
        near = [text["end"][max(0, loop.start - NEAR) : loop.start + NEAR] for text, loop in formed]
        found["end_near"] = share(max(stretch) >= SURE for stretch in near)
        found["end_elsewhere"] = mean(_end_elsewhere(text["end"], loop.start) for text, loop in formed)
    return found


def _at(text: Mapping[str, Any], place: int, name: str) -> float | None:
    return text[name][place] if 0 <= place < len(text[name]) else None


def _spike(entropy: Sequence[float], start: int, window: int) -> float | None:
    """Mean entropy of the window before a loop, less that of the text before the window; None where that is too short."""
    if start < 2 * window:
        return None
    return fmean(entropy[start - window : start]) - fmean(entropy[: start - window])


def _end_elsewhere(end: Sequence[float], start: int) -> float | None:
    """The share of stretches as long as the one near the start, before it, in which the model would rather have stopped."""
    stretches = [end[i : i + 2 * NEAR] for i in range(0, start - 3 * NEAR)]
    return fmean(max(stretch) >= SURE for stretch in stretches) if stretches else None


def _units(units: Sequence[Mapping[str, Sequence[float]]]) -> list[dict[str, Any]]:
    """By number of copies before."""
    n = len(units[0]["p"])
    return [{"before": k + 1} | {name: mean(unit[name][k] for unit in units) for name in READ} for k in range(n)]


def _rules(parts: Parts, texts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By decoding rule."""
    rows = []
    for rule in rule_names(parts):
        draws = len(parts[f"rules/{rule}"]) // len(texts)
        written, continued = (by_draw(parts[f"{kind}/{rule}"], draws) for kind in ("rules", "escapes"))
        every = [text["tokens"] for of_prompt in written for text in of_prompt]
        rows.append(
            {
                "rule": rule,
                "loops": share(fmean(final_loop(text["tokens"]) is not None for text in of_prompt) for of_prompt in written),
                "escapes": share(fmean(one["escaped"] for one in of_loop) for of_loop in continued),
                "leaves": share(fmean(one["left_after"] is not None for one in of_loop) for of_loop in continued),
                "rep_4": mean(fmean(repeated(text["tokens"], 4) for text in of_prompt) for of_prompt in written),
                "distinct_2": distinct(every, 2),
                "surprisal": mean(fmean(text["surprisal"] for text in of_prompt) for of_prompt in written),
                "noise": share(fmean(text["surprisal"] > NOISE for text in of_prompt) for of_prompt in written),
            }
        )
    return rows


def _map(parts: Parts, plan: LabPlan) -> list[dict[str, Any]]:
    """By temperature and penalty: shares of texts that loop, that are noise, and that are neither."""
    cells = []
    for temperature in plan.settings.temperatures:
        for penalty in plan.settings.penalties:
            texts = parts[f"map/{temperature}/{penalty}"]
            kinds = [kind_of(text) for text in texts]
            cells.append(
                {
                    "temperature": temperature,
                    "penalty": penalty,
                    "n": len(texts),
                    **{kind: kinds.count(kind) / len(kinds) for kind in ("loop", "text", "noise")},
                    "surprisal": mean(text["surprisal"] for text in texts),
                }
            )
    return cells


def _context(topics: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """By length of context, the shortest first; a topic's windows are one number."""
    rows = zip(*(reversed(topic) for topic in topics), strict=True)
    return [
        {"length": of_length[0]["length"]}
        | {name: mean(fmean(topic[name]) for topic in of_length) for name in ("nll", "entropy", "kl", "agreement")}
        for of_length in rows
    ]


def _context_of_loops(loops: Sequence[Mapping[str, Any]], lengths: Sequence[int]) -> list[dict[str, Any]]:
    """For the lengths that every loop has before it, so that all rows are about the same loops."""
    shared = [n for n in lengths if all(str(n) in loop["p"] for loop in loops)]
    return [{"length": n, "p": mean(loop["p"][str(n)] for loop in loops)} for n in shared if loops]


def _tail(topics: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, Any]:
    """Entropy beside the mass of the tail: rank correlation by topic, and the tail by bins of equal numbers of contexts."""
    pairs = sorted((e, t) for topic in topics for e, t in zip(topic["entropy"], topic["tail"], strict=True))
    size = max(1, len(pairs) // N_BINS)
    groups = [pairs[i : i + size] for i in range(0, size * N_BINS, size)]
    return {
        "correlation": mean(spearman(topic["entropy"], topic["tail"]) for topic in topics),
        "contexts": len(pairs),
        "bins": [
            {"entropy": fmean(e for e, _ in g), "tail": fmean(t for _, t in g), "tails": quantiles([t for _, t in g])}
            for g in groups
            if g
        ],
    }


def _heads(parts: Parts, texts: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """None where the model has none that can be read."""
    if "heads/scores" not in parts:
        return None
    scores = parts["heads/scores"]
    ranked = sorted(((score, layer, head) for layer, row in enumerate(scores) for head, score in enumerate(row)), reverse=True)
    sizes = sorted({int(name.split("/")[3]) for name in parts if name.startswith("heads/read/")})
    rows = []
    for n in sizes:
        for kind in ("none",) if n == 0 else ("strongest", "random"):
            prose = without_heads(parts, "read", kind, n, lambda part: part["prose"])
            written = without_heads(parts, "write", kind, n, lambda part: [final_loop(text) is not None for text in part])
            if n == 0:
                written = [final_loop(text["tokens"]) is not None for text in texts]
            rows.append(
                {
                    "kind": kind,
                    "n": n,
                    "loops": mean(without_heads(parts, "read", kind, n, lambda part: part["loops"])),
                    "prose": mean(prose),
                    "written": share(written),
                }
            )
    return {
        "count": len(ranked),
        "rows": rows,
        "strongest": [{"layer": layer, "head": head, "score": score} for score, layer, head in ranked[:10]],
    }


def _shown(texts: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of each style, the first text that loops and the first that does not."""
    chosen: dict[tuple[str, bool], Mapping[str, Any]] = {}
    for text in texts:
        chosen.setdefault((text["style"], final_loop(text["tokens"]) is None), text)
    return list(chosen.values())


def _strip(text: Mapping[str, Any], decode: Callable[[Sequence[int]], list[str]]) -> dict[str, Any]:
    """A text to look at, token by token; ``copy`` is 0 outside of its final loop."""
    loop = final_loop(text["tokens"])
    n = len(text["tokens"]) if loop is None else min(len(text["tokens"]), max(loop.formed + 2 * loop.period, loop.start + 60))
    inside = [loop.copy_of(i) if loop and i >= loop.start else 0 for i in range(n)]
    return {
        "name": text["name"],
        "style": text["style"],
        "tokens": decode(text["tokens"][:n]),
        "copy": inside,
        "entropy": text["entropy"][:n],
        "p": text["p"][:n],
        "end": text["end"][:n],
    }
