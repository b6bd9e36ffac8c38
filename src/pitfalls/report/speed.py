"""Speed, from ``results/benchmark/MACHINE/measured.json`` (``benchmark.py --json``): goals, ratios, lines, parts of steps.

A ratio is taken within a round, whose lines are measured one after another, and stands with the range over the rounds: a machine
that is busy for a while slows both sides of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from pitfalls.results.formats import Table

Record = Mapping[str, Any]


def tables(record: Record) -> dict[str, Table]:
    """``goals``, ``ratios``, ``lines`` and ``parts``."""
    where = record["hardware"]["cpu"] if record["device"] == "cpu" else record["device"]
    ratios = tuple(_ratios(record))
    return {
        "goals": Table(f"Speed: goals, on {where}", GOAL_HEADER, tuple(_goals(record)), GOALS_NOTE),
        "ratios": Table(f"Speed: ratios, on {where}", ("ratio", "median", "lowest to highest"), ratios, RATIOS_NOTE),
        "lines": Table("Speed: what was measured", LINE_HEADER, tuple(_lines(record)), _about(record)),
        "parts": _parts(record),
    }


GOAL_HEADER = ("goal", "asked", "median", "lowest to highest", "verdict")
LINE_HEADER = ("line", "median", "lowest to highest", "unit", "peak memory, MB")
GOALS_NOTE = (
    "The median is over rounds, of each its median. Met: in every round. Missed: in none. A share of a peak is of the "
    "fastest product in the same round, in the precision that is trained in; FLOP are nominal, 6 x parameters x all tokens of "
    "a sequence, prompt included, a third of that for an answer. Plain transformers: GPT-2 as the library sets it up, its "
    "usual loop, fp32, in a process of its own, with the faster of its two attentions."
)
RATIOS_NOTE = (
    "train: whole steps (data, forward, loss, backward, optimizer, log line). plain: transformers' own model in its usual loop, "
    "fp32; our_settings: with exact GELU, and freed memory kept. both_goals: two rows share a graph, whose edges are read once. "
    "compiled: all blocks but the last, by torch. step: forward and backward of 64 sequences of 32 tokens, fp32; stock: on "
    "transformers' own functions. decode: greedy; uncached: the whole sequence is read again for every token."
)


class Series(NamedTuple):
    """A figure of every round."""

    values: list[float]

    def over(self, other: "Series") -> "Series":
        """The ratio in the rounds that both have."""
        return Series([a / b for a, b in zip(self.values, other.values, strict=False)])

    def times(self, factor: float) -> "Series":
        """In another unit."""
        return Series([factor * value for value in self.values])


def series(record: Record, line: str) -> Series | None:
    """The median of each round; None if the line was not measured."""
    if line not in record["lines"]:
        return None
    return Series([median(values) for values in record["lines"][line]["rounds"]])


class Goal(NamedTuple):
    """What the project set itself (G(2,5), N=50)."""

    name: str
    value: Series | None
    asked: float
    at_most: bool = False
    unit: str = ""

    def verdict(self) -> str:
        """Over the rounds."""
        assert self.value is not None
        met = [value <= self.asked if self.at_most else value >= self.asked for value in self.value.values]
        return {len(met): "met", 0: "missed"}.get(sum(met), f"in {sum(met)} of {len(met)} rounds")


def goals(record: Record) -> list[Goal]:
    """Those of which both sides were measured."""
    flop = {model: each["nominal"] for model, each in record["flop_per_sample"].items()}
    precision = record["precision"]
    peak, tiny = series(record, f"machine/{precision}"), series(record, "train/gpt_tiny")
    plain = fastest(record, "train/plain_eager", "train/plain_sdpa")
    share = {
        kind: _over(_scaled(series(record, f"{kind}/gpt_mini"), passes * flop["gpt_mini"] / 1e9), peak)
        for kind, passes in (("train", 1), ("decode", 1 / 3))
    }
    cached_over_fp32 = _between(record, "decode/gpt_mini", "decode/gpt_mini_uncached_fp32")
    time = {name: _between(record, "train/gpt_tiny", f"train/{name}") for name in ("mamba_tiny", "mamba2_tiny")}
    found = [
        Goal(f"gpt_mini, training, of the {precision} peak", share["train"], 0.65),
        Goal("gpt_tiny, training", tiny, 2000, unit="samples/s"),
        Goal("gpt_tiny, training, over plain transformers", _over(tiny, plain), 3),
        Goal("gpt_mini, greedy, over reading all again in fp32", cached_over_fp32, 12),
        Goal(f"gpt_mini, greedy, of what its FLOP allow at the {precision} peak", share["decode"], 0.6),
        Goal("graphs drawn", series(record, "data/8192_at_once"), 1.5e6, unit="graphs/s"),
        Goal("mamba_tiny, training, time over gpt_tiny", time["mamba_tiny"], 4, at_most=True),
        Goal("mamba2_tiny, training, time over gpt_tiny", time["mamba2_tiny"], 1.8, at_most=True),
        Goal("import pitfalls", series(record, "startup/import"), 0.3, at_most=True, unit="s"),
        Goal("train.py --help", series(record, "startup/help"), 1.5, at_most=True, unit="s"),
        Goal("a sweep's job, beside its training", series(record, "startup/sweep_job"), 0.5, at_most=True, unit="s"),
    ]
    return [goal for goal in found if goal.value is not None]


def fastest(record: Record, *lines: str) -> Series | None:
    """Of each round."""
    found = [each for line in lines if (each := series(record, line)) is not None]
    return Series([max(values) for values in zip(*(each.values for each in found), strict=True)]) if found else None


def _scaled(a: Series | None, factor: float) -> Series | None:
    return None if a is None else a.times(factor)


def _over(a: Series | None, b: Series | None) -> Series | None:
    return None if a is None or b is None else a.over(b)


def _between(record: Record, a: str, b: str) -> Series | None:
    return _over(series(record, a), series(record, b))


def _goals(record: Record) -> Iterator[tuple[str, ...]]:
    for goal in goals(record):
        assert goal.value is not None
        unit = f" {goal.unit}" if goal.unit else ""
        asked = f"{'at most' if goal.at_most else 'at least'} {number(goal.asked)}{unit}"
        yield goal.name, asked, *_middle_and_range(goal.value.values), goal.verdict()


RATIOS = (
    ("train/gpt_tiny", "train/plain_eager"),
    ("train/gpt_tiny", "train/plain_sdpa"),
    ("train/gpt_tiny", "train/plain_eager_our_settings"),
    ("train/gpt_tiny", "train/plain_sdpa_our_settings"),
    ("train/gpt_tiny_fp32", "train/plain_eager"),
    ("train/gpt_tiny_fp32", "train/plain_eager_our_settings"),
    ("train/gpt_tiny_fp32", "train/gpt_tiny_fp32_sdpa"),
    ("train/gpt_tiny", "train/gpt_tiny_fp32"),
    ("train/gpt_tiny_compiled", "train/gpt_tiny"),
    ("train/gpt_tiny_both_goals", "train/gpt_tiny"),
    ("train/gpt_tiny_both_goals", "train/plain_eager"),
    ("train/gpt_mini", "train/gpt_mini_plain_sdpa"),
    ("train/gpt_tiny", "train/mamba_tiny"),
    ("train/gpt_tiny", "train/mamba2_tiny"),
    ("step/gpt_tiny", "step/mamba_tiny"),
    ("step/gpt_tiny", "step/mamba2_tiny"),
    ("step/mamba_tiny", "step/mamba_tiny_stock"),
    ("step/mamba2_tiny", "step/mamba2_tiny_stock"),
    ("decode/gpt_tiny", "decode/gpt_tiny_uncached"),
    ("decode/gpt_mini", "decode/gpt_mini_uncached"),
    ("decode/gpt_mini", "decode/gpt_mini_uncached_fp32"),
)


def _ratios(record: Record) -> Iterator[tuple[str, ...]]:
    """Rates over rates; then shares of the peaks, by nominal FLOP and by those that are computed."""
    for a, b in RATIOS:
        if (ratio := _between(record, a, b)) is not None:
            yield f"{a} over {b}", *_middle_and_range(ratio.values)
    precision = record["precision"]
    for model, flop in record["flop_per_sample"].items():
        for kind, per_sample in flop.items():
            rate, peak = series(record, f"train/{model}"), series(record, f"machine/{precision}")
            assert rate is not None
            assert peak is not None
            share = rate.times(per_sample / 1e9).over(peak)
            yield f"train/{model}, {kind} FLOP, of the {precision} peak", *_middle_and_range(share.values)


def _lines(record: Record) -> Iterator[tuple[str, ...]]:
    for name, line in record["lines"].items():
        values = [value for round_ in line["rounds"] for value in round_]
        memory = "-" if line["peak_mb"] is None else f"{line['peak_mb']:,.0f}"
        yield name, *_middle_and_range(values), line["unit"], memory


def _middle_and_range(values: Sequence[float]) -> tuple[str, str]:
    return number(median(values)), f"{number(min(values))} to {number(max(values))}"


def number(value: float) -> str:
    """Three figures or more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _about(record: Record) -> str:
    rounds = sorted({len(line["rounds"]) for line in record["lines"].values()}, reverse=True)
    where = f"{record['hardware']['cpu']}, {record['hardware']['n_cpus']} cores, {record['n_threads']} threads"
    where += "" if record["device"] == "cpu" else f", {record['device']}"
    return (
        f"G(2,5), N=50, batch {record['batch_size']}, training in {record['precision']}; {where}; load {record['load']:.1f} at "
        f"the end; commit {(record['commit'] or 'unknown')[:7]}. Interleaved rounds: {' or '.join(map(str, rounds))}; medians "
        "and ranges of all values. Peak memory is what a line takes beyond what the process held before it; a process of its own "
        "is not looked into (-). startup, where measured: new processes; sweep_job: what one more job adds to a sweep, its "
        "training left out."
    )


PARTS_HEADER = ("model", "part", "forward, ms", "backward, ms", "share", "lowest to highest")


def _parts(record: Record) -> Table:
    """Where a step of each model goes."""
    rows, notes = [], []
    for model, profiles in record["profiles"].items():
        for part in profiles[0]["parts"]:
            forward, backward = (median(profile["parts"][part][i] for profile in profiles) for i in (0, 1))
            shares = [sum(profile["parts"][part]) / profile["step_s"] for profile in profiles]
            rows.append((model, part, f"{1e3 * forward:.1f}", f"{1e3 * backward:.1f}", *_percent(shares)))
        casts = _percent([profile["casts_s"] / profile["step_s"] for profile in profiles])
        notes.append(
            f"{model}: {1e3 * median(profile['step_s'] for profile in profiles):.0f} ms in all, copies into another precision, "
            f"which are part of the rows above, {casts[0]} ({casts[1]}), {len(profiles)} runs."
        )
    note = (
        f"Steps as they are trained ({record['precision']}, batch {record['batch_size']}), taken apart by torch's profiler; "
        f"medians, and the range of the shares. Python: what no operator accounts for. {' '.join(notes)}"
    )
    return Table("Where a training step goes", PARTS_HEADER, tuple(rows), note)


def _percent(shares: Sequence[float]) -> tuple[str, str]:
    return f"{100 * median(shares):.1f} %", f"{100 * min(shares):.1f} to {100 * max(shares):.1f} %"
