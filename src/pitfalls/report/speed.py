"""Tables of speed from ``results/benchmark/MACHINE/measured.json`` (``scripts/benchmark.py``).

A ratio is taken within a round, in which all quantities are measured one after another, and its range is over the rounds. A
machine that is busy for a while then slows both sides of the ratio.
"""

from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

from pitfalls.report.measurements import Speed
from pitfalls.results.formats import Table

LINES = {
    "startup/torch": "import torch",
    "startup/import": "import pitfalls",
    "startup/help": "train.py --help",
    "startup/job": "a sweep of one job",
    "startup/sweep_job": "one more job of a sweep",
    "machine/fp32": "matrix product, fp32",
    "machine/bf16": "matrix product, bf16",
    "machine/copy": "copy in memory",
    "data/8192_at_once": "draw graphs, 8,192 at once",
    "data/256_at_once": "draw graphs, 256 at once",
    "data/batches": "draw the batches of a run",
    "official_format/read": "read the authors' text lines",
    "official_format/write": "write the authors' text lines",
    "train/gpt_tiny": "train gpt_tiny",
    "train/gpt_tiny_both_goals": "train gpt_tiny, two goals per graph",
    "train/gpt_tiny_fp32": "train gpt_tiny, fp32",
    "train/gpt_tiny_fp32_sdpa": "train gpt_tiny, fp32, torch's attention",
    "train/gpt_tiny_compiled": "train gpt_tiny, compiled",
    "train/plain_eager": "train plain transformers, eager attention",
    "train/plain_sdpa": "train plain transformers, torch's attention",
    "train/plain_eager_our_settings": "train plain transformers, eager attention, our settings",
    "train/plain_sdpa_our_settings": "train plain transformers, torch's attention, our settings",
    "train/mamba_tiny": "train mamba_tiny",
    "train/mamba2_tiny": "train mamba2_tiny",
    "train/gpt_mini": "train gpt_mini",
    "profile/gpt_tiny": "parts of a training step of gpt_tiny",
    "profile/gpt_mini": "parts of a training step of gpt_mini",
    "train/gpt_mini_plain_sdpa": "train plain transformers as large as gpt_mini, torch's attention",
    "step/gpt_tiny": "forward and backward of gpt_tiny",
    "step/mamba_tiny": "forward and backward of mamba_tiny",
    "step/mamba2_tiny": "forward and backward of mamba2_tiny",
    "step/mamba_tiny_stock": "forward and backward of mamba_tiny, transformers' functions",
    "step/mamba2_tiny_stock": "forward and backward of mamba2_tiny, transformers' functions",
    "decode/gpt_tiny": "answer with gpt_tiny",
    "decode/gpt_tiny_uncached": "answer with gpt_tiny, no cache",
    "decode/gpt_mini": "answer with gpt_mini",
    "decode/gpt_mini_uncached": "answer with gpt_mini, no cache",
    "decode/gpt_mini_uncached_fp32": "answer with gpt_mini, no cache, fp32",
}
"""Descriptions of the measured quantities (lines of the table), by name."""
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
    ("data/256_at_once", "data/8192_at_once"),
    ("data/batches", "data/256_at_once"),
)
"""Pairs of quantities whose rates are compared: the first divided by the second."""

GOAL_HEADER = ("goal", "asked", "median", "lowest to highest", "verdict")
RATIO_HEADER = ("line", "compared with", "ratio", "lowest to highest")
LINE_HEADER = ("line", "median", "lowest to highest", "unit", "peak memory, MB")
SKIPPED_HEADER = ("line", "reason")
PARTS_HEADER = ("model", "part", "forward, ms", "backward, ms", "share", "lowest to highest")
GOALS_NOTE = (
    "Each round gives its median, and the table shows the median and the range over rounds. A goal is met if every round "
    "meets it, and missed if none does. A share of the peak compares with the fastest matrix product of the same round, in "
    "the precision of training. FLOP are nominal: 6 x parameters x all tokens of a sequence, prompt included. The FLOP of an "
    "answer are a third of that. Plain transformers is GPT-2 in the usual training loop, in fp32, in a new process. The "
    "faster of its two attentions counts."
)
RATIOS_NOTE = (
    "A ratio compares rates, so 2 means twice as fast. Train: whole steps with data, forward, loss, backward, optimizer and log "
    "line. Plain transformers: the library's own model in the usual loop, in fp32. Our settings: exact GELU, and freed memory is "
    "kept. Two goals per graph: two rows share a graph, and its edges are read once. Compiled: torch compiles all blocks but the "
    "last. Forward and backward: 64 sequences of 32 tokens, fp32. Transformers' functions: the library's own torch functions "
    "instead of ours. Answer: greedily. No cache: the whole sequence is read again for every token. Peak: the rows on FLOP "
    "compare with the fastest matrix product of the round. Nominal FLOP are 6 x parameters x tokens; counted FLOP are those of "
    "the products that are computed. The batches of a run are drawn 256 at once, without graphs of its test set."
)


def tables(speed: Speed) -> dict[str, Table]:
    """Return the tables ``goals``, ``ratios``, ``lines`` and ``parts``, and ``skipped`` if something was not measured."""
    where = speed.hardware.cpu if speed.device == "cpu" else speed.device
    skipped = tuple((LINES.get(name, name), why) for name, why in speed.skipped.items())
    left_out = {"skipped": Table(f"Speed: what was not measured, on {where}", SKIPPED_HEADER, skipped, "")}
    return {
        "goals": Table(f"Speed: goals, on {where}", GOAL_HEADER, tuple(_goal_rows(speed)), GOALS_NOTE),
        "ratios": Table(f"Speed: ratios, on {where}", RATIO_HEADER, tuple(_ratio_rows(speed)), RATIOS_NOTE),
        "lines": Table(f"Speed: what was measured, on {where}", LINE_HEADER, tuple(_line_rows(speed)), _about(speed)),
        "parts": Table(f"Where a training step goes, on {where}", PARTS_HEADER, tuple(_part_rows(speed)), _about_parts(speed)),
        **(left_out if skipped else {}),
    }


class Series(NamedTuple):
    """The values of a quantity, one per round."""

    values: list[float]

    def over(self, other: "Series") -> "Series":
        """Return the ratio in the rounds that both series have."""
        return Series([a / b for a, b in zip(self.values, other.values, strict=False)])

    def times(self, factor: float) -> "Series":
        """Return the values times a number."""
        return Series([factor * value for value in self.values])


def series(speed: Speed, line: str) -> Series | None:
    """Return the median of each round, or None if the quantity was not measured."""
    if line not in speed.lines:
        return None
    return Series([median(values) for values in speed.lines[line].rounds])


class Goal(NamedTuple):
    """A speed goal of this project, on G(2,5) with N=50. It asks for a ratio to a reference that the same run measured."""

    name: str
    value: Series | None
    """Ratio of each round, or None if a quantity that it needs was not measured."""
    asked: float
    at_most: bool = False
    """Whether ``asked`` is the highest value allowed instead of the lowest."""

    def verdict(self) -> str:
        """Return whether all, none or some of the rounds meet the goal, in words."""
        assert self.value is not None
        met = [value <= self.asked if self.at_most else value >= self.asked for value in self.value.values]
        return {len(met): "met", 0: "missed"}.get(sum(met), f"met in {sum(met)} of {len(met)} rounds")


def goals(speed: Speed) -> list[Goal]:
    """Return the goals whose quantities were all measured."""
    peak, tiny = series(speed, f"machine/{speed.precision}"), series(speed, "train/gpt_tiny")
    plain = fastest(speed, "train/plain_eager", "train/plain_sdpa")
    flop = speed.flop_per_sample["gpt_mini"].nominal / 1e9
    share = {
        kind: _over(_scaled(series(speed, f"{kind}/gpt_mini"), passes * flop), peak)
        for kind, passes in (("train", 1), ("decode", 1 / 3))
    }
    cached_over_fp32 = _between(speed, "decode/gpt_mini", "decode/gpt_mini_uncached_fp32")
    time = {name: _between(speed, "train/gpt_tiny", f"train/{name}") for name in ("mamba_tiny", "mamba2_tiny")}
    wait = {name: _between(speed, f"startup/{name}", "startup/torch") for name in ("import", "help")}
    found = [
        Goal(f"train gpt_mini: share of the {speed.precision} peak", share["train"], 0.65),
        Goal("train gpt_tiny: speed over plain transformers", _over(tiny, plain), 3),
        Goal("answer with gpt_mini: speed over no cache in fp32", cached_over_fp32, 12),
        Goal(f"answer with gpt_mini: share of the {speed.precision} peak", share["decode"], 0.6),
        Goal(
            "draw the batches of a run: time over train gpt_tiny", _over(tiny, series(speed, "data/batches")), 0.01, at_most=True
        ),
        Goal("train mamba_tiny: time over gpt_tiny", time["mamba_tiny"], 4, at_most=True),
        Goal("train mamba2_tiny: time over gpt_tiny", time["mamba2_tiny"], 1.8, at_most=True),
        Goal("import pitfalls: time over import torch", wait["import"], 0.1, at_most=True),
        Goal("train.py --help: time over import torch", wait["help"], 0.5, at_most=True),
        Goal(
            "one more job of a sweep: time over a sweep of one job",
            _between(speed, "startup/sweep_job", "startup/job"),
            0.1,
            at_most=True,
        ),
    ]
    return [goal for goal in found if goal.value is not None]


def fastest(speed: Speed, *lines: str) -> Series | None:
    """Return the highest rate of each round among the measured ones of some quantities, or None if none was measured."""
    found = [each for line in lines if (each := series(speed, line)) is not None]
    return Series([max(values) for values in zip(*(each.values for each in found), strict=False)]) if found else None


def _scaled(a: Series | None, factor: float) -> Series | None:
    return None if a is None else a.times(factor)


def _over(a: Series | None, b: Series | None) -> Series | None:
    return None if a is None or b is None else a.over(b)


def _between(speed: Speed, a: str, b: str) -> Series | None:
    return _over(series(speed, a), series(speed, b))


def _goal_rows(speed: Speed) -> Iterator[tuple[str, ...]]:
    for goal in goals(speed):
        assert goal.value is not None
        asked = f"{'at most' if goal.at_most else 'at least'} {number(goal.asked)}"
        yield goal.name, asked, *_middle_and_range(goal.value.values), goal.verdict()


def _ratio_rows(speed: Speed) -> Iterator[tuple[str, ...]]:
    """Yield one row per pair of quantities, then the shares of the peak by nominal and by counted FLOP."""
    for a, b in RATIOS:
        if (ratio := _between(speed, a, b)) is not None:
            yield LINES[a], LINES[b], *_middle_and_range(ratio.values)
    peak = series(speed, f"machine/{speed.precision}")
    for model, flop in speed.flop_per_sample.items():
        for kind, per_sample in (("nominal", flop.nominal), ("counted", flop.counted)):
            share = _over(_scaled(series(speed, f"train/{model}"), per_sample / 1e9), peak)
            if share is None:  # the model, or the peak in this precision, was not measured
                continue
            yield f"train {model}, {kind} FLOP", f"{speed.precision} peak", *_middle_and_range(share.values)


def _line_rows(speed: Speed) -> Iterator[tuple[str, ...]]:
    for name, line in speed.lines.items():
        values = [value for round_ in line.rounds for value in round_]
        memory = "-" if line.peak_mb is None else f"{line.peak_mb:,.0f}"
        yield LINES.get(name, name), *_middle_and_range(values), line.unit, memory


def _middle_and_range(values: Sequence[float]) -> tuple[str, str]:
    return number(median(values)), f"{number(min(values))} to {number(max(values))}"


def number(value: float) -> str:
    """Return a number with three significant digits, or as a whole number if it is 100 or more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _about(speed: Speed) -> str:
    rounds = sorted({len(line.rounds) for line in speed.lines.values()}, reverse=True)
    counted = "1 round" if rounds == [1] else f"{' or '.join(map(str, rounds))} interleaved rounds"
    where = f"{speed.machine}, {speed.n_threads} threads"
    where += "" if speed.device == "cpu" else f", {speed.device}"
    return (
        f"G(2,5), N=50, batch {speed.batch_size}, training in {speed.precision}. {where}, load {speed.load:.1f} at the end, "
        f"commit {(speed.commit or 'unknown')[:7]}. Medians and ranges are over all values of {counted}. Peak memory is the most "
        "beyond what the process held before; it is not measured (-) if the work is done in a new process. The time of one more "
        "job of a sweep is without its training."
    )


def _part_rows(speed: Speed) -> Iterator[tuple[str, ...]]:
    """Yield one row per model and part of a step: median time, and median and range of its share of the step."""
    for model, profiles in speed.profiles.items():
        for part in profiles[0].parts:
            forward, backward = (median(profile.parts[part][i] for profile in profiles) for i in (0, 1))
            shares = [sum(profile.parts[part]) / profile.step_s for profile in profiles]
            yield model, part, f"{1e3 * forward:.1f}", f"{1e3 * backward:.1f}", *_percent(shares)


def _about_parts(speed: Speed) -> str:
    notes = []
    for model, profiles in speed.profiles.items():
        middle, bounds = _percent([profile.casts_s / profile.step_s for profile in profiles])
        counted = "1 profile" if len(profiles) == 1 else f"{len(profiles)} profiles"
        notes.append(
            f"{model}: {1e3 * median(profile.step_s for profile in profiles):.0f} ms per step in {counted}. "
            f"Copies into another precision take {middle} ({bounds}) of it, as part of the rows above."
        )
    return (
        f"Training steps in {speed.precision} at batch {speed.batch_size}, measured with torch's profiler. Times and shares are "
        f"medians, and the range is of the share. Python is the time in which no operator runs. {' '.join(notes)}"
    )


def _percent(shares: Sequence[float]) -> tuple[str, str]:
    return f"{100 * median(shares):.1f} %", f"{100 * min(shares):.1f} to {100 * max(shares):.1f} %"
