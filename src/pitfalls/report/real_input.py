"""Scores of runs on files that nobody here wrote: ``results/real_input/*.json``.

``scripts/evaluate.py RUN --data FILE --json`` prints such a score.
"""

from collections.abc import Sequence

from pitfalls.results.formats import Table
from pitfalls.results.statistics import wilson
from pitfalls.runs.counts import Count
from pitfalls.runs.records import Score

HEADER = ("run", "file", "graphs", "exact match", "first hop", "seconds")
NOTE = (
    "The runs are those of the set laptop, trained on generated graphs only. The files are test graphs that the paper's authors "
    "published. Brackets: 95 % Wilson interval over graphs."
)


def real_input(scores: Sequence[Score]) -> Table:
    """Return the table: one row per run and file."""
    rows = tuple(
        (
            score.run.rpartition("-")[0],
            str(score.data),
            f"{score.evaluation.first_hop.n:,}",
            _share(score.evaluation.exact_match),
            _share(score.evaluation.first_hop),
            f"{score.seconds:.0f}",
        )
        for score in scores
    )
    return Table("Real input", HEADER, rows, NOTE)


def _share(count: Count) -> str:
    if not count.n:
        return "-"
    low, high = wilson(count.k, count.n)
    return f"{count.k / count.n:.4f} [{low:.4f}, {high:.4f}]"
