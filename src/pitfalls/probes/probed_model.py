"""The input of a probe: a trained model, graphs that it never saw, and its evaluations so far."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from pitfalls.evaluation.decoding import decode
from pitfalls.evaluation.score import BATCH_ROWS
from pitfalls.models.trunk import Trunk
from pitfalls.objectives.base import Objective
from pitfalls.runs.counts import Count, Evaluation, Split
from pitfalls.runs.records import CurvePoint, EvaluationRow
from pitfalls.seeding import generator
from pitfalls.tasks.batch import Batch
from pitfalls.tasks.path_star import PathStar


@dataclass(frozen=True)
class ProbedModel:
    """A trained model, test graphs and the evaluations of its training."""

    trunk: Trunk
    """The trunk, in eval mode."""
    objective: Objective
    task: PathStar
    graphs: Batch
    """B rows of graphs that do not occur in training, on the trunk's device."""
    seed: int
    """Root seed of the random stream "probe"."""
    evaluations: Mapping[Split, Evaluation]
    """The final evaluations by split: "test", and "train" if the training set is fixed."""
    curve: Sequence[CurvePoint | EvaluationRow]
    """The evaluations during training, in order."""

    def draws(self, index: int) -> torch.Generator:
        """Return a new generator. Every probe has an index of its own, so none depends on which others run."""
        return generator(self.seed, "probe", index, self.graphs.prompt.device)

    @property
    def answers_whole_paths(self) -> bool:
        """Whether all l tokens of an answer mean something."""
        return len(self.objective.supervised()) == self.task.target_length

    @property
    def is_partial(self) -> str | None:
        """The reason why a question about whole paths makes no sense for the method, or None if it does."""
        return None if self.answers_whole_paths else "the method answers some positions only, not whole paths"

    @cached_property
    def has_no_forcing(self) -> str | None:
        """The reason why a question about teacher forcing makes no sense for the method, or None if it does."""
        forced = any(c.n for c in self.evaluations["test"].forced_position_accuracy)
        return None if forced else "the method has no predictions under teacher forcing"

    def slices(self) -> Iterator[Batch]:
        """Yield the graphs in slices that fit one forward pass."""
        for start in range(0, len(self.graphs.prompt), BATCH_ROWS):
            yield self.graphs.rows(start, start + BATCH_ROWS)

    def answers(self, draws: torch.Generator | None = None, *, procedure: str | None = None) -> Int[Tensor, "B L"]:
        """Return the model's answers in canonical order: greedy, or sampled from ``draws`` at temperature 1.

        Args:
            draws: the random stream of the samples.
            procedure: a decoding procedure, by default the objective's own.
        """
        parts = [
            decode(self.trunk, self.objective, rows.prompt, rows.target.shape[1], procedure=procedure, generator=draws)
            for rows in self.slices()
        ]
        return torch.cat(parts)

    @cached_property
    def greedy_answers(self) -> Int[Tensor, "B L"]:
        """The greedy answers of the objective's own inference, which several probes read."""
        return self.answers()


def count(hits: Bool[Tensor, " B"]) -> Count:
    """Return the count of rows that are true."""
    return Count(int(hits.sum()), hits.numel())
