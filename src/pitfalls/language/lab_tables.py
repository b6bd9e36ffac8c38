"""The tables of the degeneration lab, from its record (``results/degeneration/MODEL/record.json``)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median_high

from pitfalls.language.beliefs import Judgement
from pitfalls.language.lab_record import Estimate, HeadSummary, LabRecord, PastGoal
from pitfalls.results import formats
from pitfalls.results.formats import Table
from pitfalls.results.statistics import wilson
from pitfalls.runs.counts import FIRST_HOP, Count

KINDS = {"sentence": "a sentence, by hand", "random": "random tokens, by hand", "word": "one word, by hand"}
"""Labels of the units that are repeated by hand."""
ENDS = {"ban": "end-of-text banned", "ignore": "end-of-text written and ignored"}


def write(record: LabRecord, judgements: Sequence[Judgement], folder: Path) -> dict[str, Table]:
    """Write every table (md, csv, tex) into a folder, and return the tables by name."""
    made = tables(record, judgements)
    for name, table in made.items():
        formats.write(table, folder / name)
    return made


def tables(record: LabRecord, judgements: Sequence[Judgement]) -> dict[str, Table]:
    """Return the tables of a lab by name. The table of heads exists only if the model has heads that can be observed."""
    found = {
        "ledger": ledger(record, judgements),
        "loops": loops(record),
        "copies": copies(record),
        "rules": rules(record),
        "map": map_table(record),
        "context": context(record),
        "sign": sign(record),
    }
    return found | ({"heads": heads(record, record.heads)} if record.heads else {})


def interval(estimate: Estimate | None, digits: int = 2) -> str:
    """Return value and interval as text, or "-" if nothing was measured."""
    if estimate is None:
        return "-"
    return f"{estimate.value:.{digits}f} ({estimate.low:.{digits}f} to {estimate.high:.{digits}f})"


def _source(record: LabRecord) -> str:
    """Return the last sentences of every note: model, machine, and the meaning of the intervals."""
    model, hardware = record.model, record.hardware
    return (
        f"Model: {record.source.name}, {model.parameters / 1e6:.0f} M parameters, {model.precision}. "
        f"Machine: {hardware.machine}. Intervals are at 95 %."
    )


def ledger(record: LabRecord, judgements: Sequence[Judgement]) -> Table:
    """Return a table of the common beliefs and the measured values."""
    rows = tuple(
        (j.verdict, j.belief.statement, interval(j.estimate), j.belief.rule, _n(j), j.belief.measured) for j in judgements
    )
    header = ("verdict", "belief", "measured", "holds if", "n", "what is measured")
    note = (
        "A belief holds if the whole interval is within the rule. It is refuted if no part of the interval is. "
        "Too few to hold: the interval would reach beyond the rule even if all n values agreed. "
        f"The CSV file says what is measured. {_source(record)}"
    )
    return Table(f"What is said of degeneration, on {record.source.name}", header, rows, note, shown=header[:-1])


def _n(judgement: Judgement) -> str:
    """Return the number of values as text, with a remark if so few could not confirm the belief."""
    if judgement.estimate is None:
        return "-"
    n = str(judgement.estimate.n)
    return n if judgement.belief.can_hold(judgement.estimate) else f"{n}, too few to hold"


def loops(record: LabRecord) -> Table:
    """Return a table of greedy texts: the share that loops, and the properties of the loops."""
    found = record.loops.values()
    rows = (
        ("texts that end in a loop", *(interval(one.rate) for one in found)),
        ("of the completions", *(interval(one.by_style.get("completion")) for one in found)),
        ("of the chats", *(interval(one.by_style.get("chat")) for one in found)),
        ("first copy starts at token", *(interval(one.start, 0) for one in found)),
        ("period in tokens, median", *(_median(one.period) for one in found)),
        ("period in tokens, range", *(_range(one.period) for one in found)),
        ("third copy complete at token, median", *(_median(one.formed) for one in found)),
        ("loops that were left", *(interval(one.ended) for one in found)),
    )
    header = ("greedy texts", *(ENDS[end] for end in record.loops))
    n = next(iter(found)).tokens
    note = f"The texts have {n} tokens. A loop is three or more copies of one unit. {_source(record)}"
    return Table("Loops of greedy decoding", header, rows, note)


def _median(values: Sequence[float]) -> str:
    return f"{median_high(values):.0f}" if values else "-"


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.0f} to {max(values):.0f}" if values else "-"


def rules(record: LabRecord) -> Table:
    """Return a table of the effect of each decoding rule on loops."""
    rows = tuple(
        (
            row.rule,
            interval(row.loops),
            interval(row.leaves),
            interval(row.escapes),
            interval(row.surprisal),
            interval(row.noise),
            interval(row.rep_4),
            f"{row.distinct_2:.2f}",
        )
        for row in record.rules
    )
    header = (
        "rule",
        "texts that loop",
        "leaves a formed loop",
        "ends in no loop",
        "surprisal, nats",
        "texts that are noise",
        "repeated 4-grams",
        "distinct 2-grams",
    )
    settings = record.settings
    note = (
        f"The texts have {settings.rule_tokens} tokens. A formed loop is one of greedy decoding: each rule goes "
        f"on from its third copy for {settings.escape_tokens} tokens. Surprisal is under the model itself, at temperature 1. "
        f"A text is noise above ln 1000 nats per token. The CSV file also has repeated and distinct n-grams. {_source(record)}"
    )
    return Table("Decoding rules and loops", header, rows, note, shown=header[:6])


def map_table(record: LabRecord) -> Table:
    """Return a table of the shares of loops, text and noise by temperature and penalty."""
    rows = tuple(
        (
            f"{c.temperature:g}",
            f"{c.penalty:g}",
            *(_share(share, c.n) for share in (c.loop, c.text, c.noise)),
            interval(c.surprisal),
        )
        for c in record.map
    )
    header = ("temperature", "repetition penalty", "loops", "text", "noise", "surprisal, nats")
    note = f"Each row has {record.map[0].n} texts. Temperature 0 is greedy decoding. {_source(record)}"
    return Table("From loops through text to noise", header, rows, note)


def _share(value: float, n: int) -> str:
    low, high = wilson(value * n, n)
    return interval(Estimate(value, low, high, n))


def copies(record: LabRecord) -> Table:
    """Return a table of the model's predictions by copy, for greedy loops and for units repeated by hand."""
    names = ("p", "top", "entropy")
    before = record.copies.before
    rows = [("greedy loops", "before", *(interval(getattr(before, name)) for name in names))] if before.p else []
    rows += [("greedy loops", str(row.copy), *(interval(getattr(row, name)) for name in names)) for row in record.copies.rows]
    for kind, label in KINDS.items():
        rows += [(label, str(row.before + 1), *(interval(getattr(row, name)) for name in names)) for row in record.units[kind]]
    header = ("what is repeated", "copy", "probability of its tokens", "of the likeliest token", "entropy, nats")
    note = (
        "Values are means over the tokens of a copy, given all tokens before them. "
        '"before" is the text before the first copy. By hand, the first copy is left out: no copy stands before it. '
        f"{_source(record)}"
    )
    return Table("Copy by copy", header, tuple(rows), note)


def context(record: LabRecord) -> Table:
    """Return a table of the effect of more context."""
    inside = {row.length: row.p for row in record.context_of_loops}
    rows = tuple(
        (
            str(row.length),
            *(interval(getattr(row, name)) for name in ("nll", "entropy", "kl", "agreement")),
            interval(inside.get(row.length)),
        )
        for row in record.context
    )
    header = (
        "tokens of context",
        "loss, nats",
        "entropy, nats",
        "KL divergence from the longest, nats",
        "same first choice",
        "next token of a formed loop",
    )
    note = (
        "The targets are the same at every length. Eight neighbours share a pass, so the last has seven tokens more. "
        f"The prose is from {len(record.settings.topics)} topics of the Python reference. The last column is the mean "
        f"probability of the tokens that go on with a greedy loop just formed. {_source(record)}"
    )
    return Table("Context", header, rows, note)


def sign(record: LabRecord) -> Table:
    """Return a table of how well a linear probe finds repetition in the hidden states."""
    rows = tuple(("position only" if row.layer is None else f"layer {row.layer}", interval(row.auc)) for row in record.sign)
    note = (
        "The probe tells tokens of a second or later copy from all others. It is judged on prompts that it was not fitted to. "
        f"{_source(record)}"
    )
    return Table("Can repetition be read off the hidden states?", ("probe", "area under the ROC curve"), rows, note)


def heads(record: LabRecord, found: HeadSummary) -> Table:
    """Return a table of the effect of silenced heads."""
    rows = tuple(
        (
            "no head" if row.n == 0 else f"{row.n} {'strongest' if row.kind == 'strongest' else 'others, at random'}",
            interval(row.loops),
            interval(row.written),
            interval(row.prose),
        )
        for row in found.rows
    )
    best = ", ".join(f"layer {h.layer} head {h.head} ({h.score:.2f})" for h in found.strongest[:5])
    note = (
        f"The model has {found.count} heads. Their score is the attention to the token after the previous "
        f"occurrence, in random tokens that are written twice. The strongest are {best}. {_source(record)}"
    )
    header = ("silenced", "probability of the fourth copy", "greedy texts that loop", "loss on prose, nats")
    return Table("Induction heads and loops", header, rows, note)


def path_star(entries: Sequence[PastGoal]) -> Table:
    """Return a table of what path-star models write after the goal (`past_the_goal`)."""
    rows = tuple(
        (
            e.objective,
            e.graph,
            str(e.seed),
            interval(e.exact_match),
            *_entropies(e),
            _most(e.next),
            interval(e.loops),
            ", ".join(f"{p} ({n})" for p, n in e.periods[:3]) or "-",
            interval(e.entropy_in_loop),
            _error(e.forced),
            _error(e.after_right),
        )
        for e in entries
    )
    n = sorted({e.tokens for e in entries})
    header = (
        "objective",
        "graph",
        "seed",
        "exact match",
        "entropy of the first hop",
        "largest entropy elsewhere",
        "entropy after the path",
        "next token after the path",
        "ends in a loop",
        "periods (texts)",
        "entropy in the loop",
        "error after gold tokens",
        "error after its own, first hop right",
    )
    shown = tuple(header[i] for i in (0, 1, 2, 3, 4, 5, 7, 8))
    note = (
        f"Greedy decoding goes on for {' or '.join(map(str, n))} tokens after the path. Entropies are means in nats. "
        "Elsewhere is the position of the path with the largest entropy besides the first hop. The next token is of the kind "
        "that comes most often; its share is in parentheses. The CSV file also has the entropy after the path, the periods of "
        "loops, and the largest error of a position besides the first hop, from the run's record."
    )
    return Table("Past the goal", header, rows, note, shown)


def _entropies(entry: PastGoal) -> tuple[str, str, str]:
    """Return the entropy at the first hop, the largest elsewhere on the path, and the mean past its end."""
    values = [e.value for e in entry.entropy]
    n = len(values) - entry.tokens
    hop = entry.first_hop_place
    elsewhere = max(value for i, value in enumerate(values[:n]) if i != hop)
    return f"{values[hop]:.3f}", f"{elsewhere:.3f}", f"{fmean(values[n:]):.3f}"


def _error(counts: Sequence[Count] | None) -> str:
    """Return the largest error rate of a position besides the first hop."""
    errors = [1 - c.k / c.n for i, c in enumerate(counts or ()) if i != FIRST_HOP and c.n]
    return f"{max(errors):.4f}" if errors else "-"


def _most(kinds: Mapping[str, float]) -> str:
    """Return the most frequent kind and its share."""
    kind = max(kinds, key=lambda name: kinds[name])
    return f"{kind} ({kinds[kind]:.2f})"
