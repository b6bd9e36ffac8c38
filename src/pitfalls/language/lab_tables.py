"""The degeneration lab as tables, from its record (``results/degeneration/MODEL/record.json``)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from pitfalls.language.beliefs import Judgement
from pitfalls.results import formats
from pitfalls.results.formats import Table
from pitfalls.results.kept import FIRST_HOP
from pitfalls.results.statistics import wilson

Record = Mapping[str, Any]
KINDS = {"sentence": "a sentence, by hand", "random": "random tokens, by hand", "word": "one word, by hand"}
ENDS = {"ban": "banned", "ignore": "written and ignored"}


def write(record: Record, judgements: Sequence[Judgement], folder: Path) -> dict[str, Table]:
    """Tables (md, csv, tex) into a folder; returns them."""
    made = tables(record, judgements)
    for name, table in made.items():
        formats.write(table, folder / name)
    return made


def tables(record: Record, judgements: Sequence[Judgement]) -> dict[str, Table]:
    """By name."""
    found = {
        "ledger": ledger(record, judgements),
        "loops": loops(record),
        "copies": copies(record),
        "rules": rules(record),
        "map": map_table(record),
        "context": context(record),
        "sign": sign(record),
    }
    return found | ({"heads": heads(record)} if record["heads"] else {})


def interval(estimate: Mapping[str, float] | None, digits: int = 2) -> str:
    """Value and interval; "-" where nothing was measured."""
    if estimate is None:
        return "-"
    value, low, high = (f"{estimate[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _where(record: Record) -> str:
    hardware = record["hardware"]
    return (
        f"{record['source']['name']}, {record['model']['parameters'] / 1e6:.0f} M parameters, {record['model']['precision']}; "
        f"{hardware['cpu']}, {hardware['n_cpus']} cores. Intervals at 95 %."
    )


def ledger(record: Record, judgements: Sequence[Judgement]) -> Table:
    """What is commonly said, and what was seen."""
    rows = tuple(
        (j.verdict, j.belief.statement, j.belief.measured, j.belief.rule, interval(j.estimate), _n(j)) for j in judgements
    )
    note = f"A belief holds if the whole interval is within the rule, is refuted if none of it is. {_where(record)}"
    header = ("verdict", "belief", "measure", "holds if", "measured", "n")
    return Table(f"What is said of degeneration, on {record['source']['name']}", header, rows, note)


def _n(judgement: Judgement) -> str:
    """How many values, and whether so many could have decided for the belief."""
    if judgement.estimate is None:
        return "-"
    n = str(int(judgement.estimate["n"]))
    return n if judgement.belief.can_hold(judgement.estimate) else f"{n}, too few to hold"


def loops(record: Record) -> Table:
    """Greedy texts."""
    rows = []
    for end, found in record["loops"].items():
        rows.append(
            (
                ENDS[end],
                interval(found["rate"]),
                *(interval(found["by_style"][style]) for style in ("completion", "chat")),
                interval(found["start"], 0),
                _median(found["period"]),
                _range(found["period"]),
                _median(found["formed"]),
                interval(found["ended"]),
            )
        )
    header = (
        "end-of-text",
        "texts that end in a loop",
        "completions",
        "chats",
        "first copy starts",
        "period, median",
        "period, range",
        "third copy complete, median",
        "loops that were left",
    )
    n = next(iter(record["loops"].values()))["tokens"]
    note = f"Greedy texts of {n} tokens; a loop is three copies of one unit or more. Starts, periods in tokens. {_where(record)}"
    return Table("Loops of greedy decoding", header, tuple(rows), note)


def _median(values: Sequence[float]) -> str:
    return f"{sorted(values)[len(values) // 2]:.0f}" if values else "-"


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.0f} to {max(values):.0f}" if values else "-"


def rules(record: Record) -> Table:
    """Decoding rules."""
    rows = tuple(
        (
            row["rule"],
            interval(row["loops"]),
            interval(row["leaves"]),
            interval(row["escapes"]),
            interval(row["rep_4"]),
            f"{row['distinct_2']:.2f}",
            interval(row["surprisal"]),
            interval(row["noise"]),
        )
        for row in record["rules"]
    )
    header = (
        "rule",
        "texts that loop",
        "leaves a formed loop",
        "and is in none",
        "rep-4",
        "distinct-2",
        "surprisal, nats",
        "texts that are noise",
    )
    settings = record["settings"]
    note = (
        f"Texts of {settings['rule_tokens']} tokens; loops that greedy decoding formed, gone on with for "
        f"{settings['escape_tokens']} tokens from the third copy. Surprisal under the model itself, at temperature 1; noise: ln "
        f"1000 nats per token or more. {_where(record)}"
    )
    return Table("Decoding rules and loops", header, rows, note)


def map_table(record: Record) -> Table:
    """Temperature and penalty."""
    rows = tuple(
        (
            f"{c['temperature']:g}",
            f"{c['penalty']:g}",
            *(_share(c[kind], c["n"]) for kind in ("loop", "text", "noise")),
            interval(c["surprisal"]),
            str(c["n"]),
        )
        for c in record["map"]
    )
    header = ("temperature", "repetition penalty", "loops", "text", "noise", "surprisal, nats", "texts")
    return Table("From loops through text to noise", header, rows, f"Temperature 0 is greedy decoding. {_where(record)}")


def _share(value: float, n: int) -> str:
    low, high = wilson(value * n, n)
    return interval({"value": value, "low": low, "high": high})


def copies(record: Record) -> Table:
    """By copy: of greedy loops, and of units repeated by hand."""
    names = ("p", "top", "entropy")
    before = record["copies"]["before"]
    rows = [("greedy loops", "before", *(interval(before[name]) for name in names))] if before["p"] else []
    rows += [("greedy loops", str(row["copy"]), *(interval(row[name]) for name in names)) for row in record["copies"]["rows"]]
    for kind, label in KINDS.items():
        rows += [(label, str(row["before"] + 1), *(interval(row[name]) for name in names)) for row in record["units"][kind]]
    header = ("what is repeated", "copy", "probability of its tokens", "of the likeliest token", "entropy, nats")
    note = (
        f"Means over the tokens of a copy, given all before them; before: the text before the first copy. Of what is "
        f"repeated by hand, the first copy has nothing before it and is left out. {_where(record)}"
    )
    return Table("Copy by copy", header, tuple(rows), note)


def context(record: Record) -> Table:
    """What more context gives."""
    inside = {row["length"]: row["p"] for row in record["context_of_loops"]}
    rows = tuple(
        (
            str(row["length"]),
            *(interval(row[name]) for name in ("nll", "entropy", "kl", "agreement")),
            interval(inside.get(row["length"])),
        )
        for row in record["context"]
    )
    header = (
        "tokens of context",
        "loss, nats",
        "entropy, nats",
        "KL from the longest, nats",
        "same first choice",
        "next token of a formed loop",
    )
    note = (
        f"The same targets at every length, in windows of eight that share a pass (the last has seven tokens more), from "
        f"{len(record['settings']['topics'])} topics of the Python reference. Last column: mean probability of tokens that go "
        f"on with a greedy loop just formed. {_where(record)}"
    )
    return Table("Context", header, rows, note)


def sign(record: Record) -> Table:
    """The linear probe."""
    rows = tuple(
        ("position only" if row["layer"] is None else f"layer {row['layer']}", interval(row["auc"])) for row in record["sign"]
    )
    note = f"Does a token belong to a second or later copy? Prompts that the probe was not fitted to. {_where(record)}"
    return Table("Can repetition be read off the hidden states?", ("probe", "area under the ROC curve"), rows, note)


def heads(record: Record) -> Table:
    """Silenced heads."""
    rows = tuple(
        (
            "no head" if row["n"] == 0 else f"{row['n']} {'strongest' if row['kind'] == 'strongest' else 'others, at random'}",
            interval(row["loops"]),
            interval(row["written"]),
            interval(row["prose"]),
        )
        for row in record["heads"]["rows"]
    )
    best = ", ".join(f"layer {h['layer']} head {h['head']} ({h['score']:.2f})" for h in record["heads"]["strongest"][:5])
    note = (
        f"Of {record['heads']['count']} heads; strongest by attention to the token after the previous occurrence, in random "
        f"tokens that stand there twice: {best}, ... The loss is that on prose. {_where(record)}"
    )
    header = ("silenced", "probability of the fourth copy", "greedy texts that loop", "loss on prose, nats")
    return Table("Induction heads and loops", header, rows, note)


def path_star(entries: Sequence[Record]) -> Table:
    """Models of our own task."""
    rows = tuple(
        (
            e["objective"],
            e["graph"],
            str(e["seed"]),
            interval(e["exact_match"]),
            *_entropies(e),
            _error(e["forced"]),
            _error(e["after_right"]),
            _most(e["next"]),
            interval(e["loops"]),
            ", ".join(f"{p} ({n})" for p, n in e["periods"][:3]) or "-",
            interval(e["entropy_in_loop"]),
        )
        for e in entries
    )
    n = sorted({e["tokens"] for e in entries})
    header = (
        "objective",
        "graph",
        "seed",
        "exact match",
        "entropy of the first hop",
        "elsewhere on the path",
        "past its end",
        "error after gold tokens",
        "error after its own, first hop right",
        "stands after the end",
        "ends in a loop",
        "periods (texts)",
        "entropy in the loop",
    )
    note = (
        f"Greedy decoding that goes on for {' or '.join(map(str, n))} tokens after the path. Entropies are means in nats, the "
        f"largest of a position elsewhere; errors, from the run's record, the largest of a position besides the first hop."
    )
    return Table("Past the goal", header, rows, note)


def _entropies(entry: Record) -> tuple[str, str, str]:
    values = [e["value"] for e in entry["entropy"]]
    n = len(values) - entry["tokens"]
    hop = entry["first_hop_place"]
    elsewhere = max(value for i, value in enumerate(values[:n]) if i != hop)
    return f"{values[hop]:.3f}", f"{elsewhere:.3f}", f"{fmean(values[n:]):.3f}"


def _error(counts: Sequence[Mapping[str, int]] | None) -> str:
    """Of the worst position besides the first hop."""
    errors = [1 - c["k"] / c["n"] for i, c in enumerate(counts or ()) if i != FIRST_HOP and c["n"]]
    return f"{max(errors):.4f}" if errors else "-"


def _most(kinds: Mapping[str, float]) -> str:
    kind = max(kinds, key=lambda name: kinds[name])
    return f"{kind} ({kinds[kind]:.2f})"
