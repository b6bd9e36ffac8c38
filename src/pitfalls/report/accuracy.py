"""Exact match per graph, model and training data, over all kept runs: ``results/accuracy``."""

from collections.abc import Sequence

from pitfalls.results.formats import Table
from pitfalls.results.groups import by_seed, n_solved, seeds_of_configs, training_text
from pitfalls.results.kept import SOLVED, Kept

OBJECTIVES = {"next_token": "next token", "teacherless": "teacherless", "reversed": "reversed"}
"""The paper's objectives, in the order of the table."""
NOT_READ = "The paper's own tables could not be read here, so no number of it is quoted: compare with 1/d."
HEADER = ("graph, N", "1/d", "model", "training data", "samples, precision", "objective", "exact match", "solved")
NOTE = f"Exact match on test graphs, each seed's value. Solved: seeds with an exact match of at least {SOLVED}. {NOT_READ}"


def accuracy(kept: Sequence[Kept]) -> Table:
    """Return the table: one row per config of the paper's objectives, with the values of all seeds."""
    groups = [runs for runs in seeds_of_configs(kept) if runs[0].objective in OBJECTIVES]
    order = list(OBJECTIVES)
    groups.sort(key=lambda runs: (runs[0].star, runs[0].model, runs[0].data_text, order.index(runs[0].objective)))
    return Table("Accuracy per graph and model", HEADER, tuple(_row(runs) for runs in groups), NOTE)


def _row(runs: Sequence[Kept]) -> tuple[str, ...]:
    first = runs[0]
    return (
        first.graph_text,
        f"{first.chance:.3f}",
        first.model,
        first.data_text,
        training_text(runs),
        OBJECTIVES[first.objective],
        by_seed([run.exact_match for run in runs]),
        f"{n_solved(runs)} of {len(runs)}",
    )
