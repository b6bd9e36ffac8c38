"""Scores, probes and answers of a run as tables for the terminal."""

from collections.abc import Mapping
from typing import Any

import msgspec
from rich.table import Table
from rich.text import Text

from pitfalls.results.formats import Table as TextTable
from pitfalls.results.statistics import wilson
from pitfalls.runs.counts import FIRST_HOP, Count, Evaluation
from pitfalls.runs.probe_records import Probes
from pitfalls.runs.records import Example

OUTCOMES = ("exact_match", "first_hop", "right_arm", "wrong_arm", "wrong_arm_then_goal", "broken_walk")


def score_table(evaluation: Evaluation, title: str) -> TextTable:
    """Return every count with its share and its 95 % Wilson interval."""
    rows = [_count_row(name.replace("_", " "), getattr(evaluation, name)) for name in OUTCOMES]
    for i, (free, forced) in enumerate(zip(evaluation.free_position_accuracy, evaluation.forced_position_accuracy, strict=True)):
        rows += [_count_row(f"position {i}, free ({evaluation.decoder})", free), _count_row(f"position {i}, forced", forced)]
    return TextTable(title, ("what", "share", "95 % interval", "k of n"), tuple(rows))


def _count_row(name: str, count: Count) -> tuple[str, ...]:
    if not count.n:
        return name, "-", "-", "not answered"
    low, high = wilson(count.k, count.n)
    return name, f"{count.k / count.n:.4f}", f"{low:.4f} to {high:.4f}", f"{count.k} of {count.n}"


def probe_table(probes: Probes, absent: Mapping[str, str], title: str) -> TextTable:
    """Return one row per number. Where a probe has a number per target position, the row has them all.

    Args:
        probes: the results.
        absent: why a probe has no result, by its name (`pitfalls.probes.absent_probes`).
        title: the title of the table.
    """
    rows: list[tuple[str, ...]] = []
    for name, result in msgspec.to_builtins(probes).items():
        lines = [(f"absent: {absent[name]}", "", "")] if result is None else _probe_lines(result)
        rows += [("" if i else name.replace("_", " "), *line) for i, line in enumerate(lines)]
    return TextTable(title, ("probe", "what", "value", "of"), tuple(rows))


def _probe_lines(result: dict[str, Any], prefix: str = "") -> list[tuple[str, str, str]]:
    """Return name, value and number of values of each number."""
    lines: list[tuple[str, str, str]] = []
    for name, value in result.items():
        what = f"{prefix} {name}".strip().replace("_", " ")
        if isinstance(value, dict) and "n" not in value:
            lines += _probe_lines(value, what)
        elif isinstance(value, list):
            shown, sizes = zip(*map(_number, value), strict=True)
            lines.append((f"{what}, start to goal", " ".join(shown), " ".join(dict.fromkeys(sizes))))
        else:
            text, size = _number(value)
            if isinstance(value, dict) and value["n"] and "k" in value:
                low, high = wilson(value["k"], value["n"])
                text += f"  [{low:.3f}, {high:.3f}]"
            lines.append((what, text, size))
    return lines


def _number(value: Any) -> tuple[str, str]:
    """Return one number as text, and the number of values behind it."""
    if value is None:
        return "-", ""
    if isinstance(value, dict) and "k" in value:
        return (f"{value['k'] / value['n']:.3f}" if value["n"] else "-"), f"{value['n']:,}"
    if isinstance(value, dict):
        return f"{value['sum'] / value['n']:.3f} nats", f"{value['n']:,}"
    return (f"{value:,}" if isinstance(value, int) else f"{value:.3f}"), ""


def example_blocks(number: int, example: Example) -> list[Text | Table]:
    """Return one graph with its question, and its answer token by token: right tokens green, wrong ones red."""
    edges = "  ".join(f"{a}→{b}" for a, b in example.edges)
    head = Text(f"\ngraph {number}: {edges}\nfrom {example.start} to {example.goal}", "bold")
    table = Table(title=f"answer: {example.outcome.replace('_', ' ')}" if example.outcome else "answer")
    for name in ("position", "target", "answer", "p(answer)", "p(target)", "entropy, nats"):
        table.add_column(name, justify="right")
    reading = example.reading
    for i, (want, got) in enumerate(zip(example.target, example.answer, strict=True)):
        style = "dim" if i not in example.answered else "green" if want == got else "bold red"
        name = f"{i} (first hop)" if i == FIRST_HOP else str(i)
        numbers = (
            [f"{values[i]:.3f}" for values in (reading.p_answer, reading.p_target, reading.entropy)] if reading else ["-"] * 3
        )
        table.add_row(name, want, Text(got, style), *numbers)
    return [head, table]
