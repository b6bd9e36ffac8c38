"""What a probe may look at: a trained model, graphs that it never saw, and how it was scored on the way."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from pitfalls.evaluation.decoding import PROCEDURES, decode
from pitfalls.evaluation.score import BATCH_ROWS
from pitfalls.models.trunk import Trunk
from pitfalls.objectives.base import Objective
from pitfalls.runs.records import Count, CurvePoint, Evaluation, EvaluationRow, Split
from pitfalls.seeding import generator
from pitfalls.tasks.batch import Batch
from pitfalls.tasks.path_star import PathStar


@dataclass(frozen=True)
class ProbedModel:
    """A trained model and its record so far."""

    trunk: Trunk
    """In eval mode."""
    objective: Objective
    task: PathStar
    graphs: Batch
    """B rows, one goal each, that do not occur in training; on the trunk's device."""
    seed: int
    """Root of the random stream "probe"."""
    evaluations: Mapping[Split, Evaluation]
    """The final ones by split: "test", and "train" in the fixed regime."""
    curve: Sequence[CurvePoint | EvaluationRow]
    """Evaluations over training, as ``metrics.jsonl`` holds them."""

    def draws(self, index: int) -> torch.Generator:
        """A fresh generator; every probe has an index of its own, so none depends on which others run."""
        return generator(self.seed, "probe", index, self.graphs.prompt.device)

    @property
    def answers_whole_paths(self) -> bool:
        """Whether all l tokens of an answer mean something."""
        return len(self.objective.supervised()) == self.task.target_length

    @cached_property
    def can_be_forced(self) -> bool:
        """Whether it writes whole paths in several passes and goes on from a beginning, the start and a first hop."""
        order = torch.arange(self.task.target_length)[None]
        forwards = torch.equal(self.objective.unview(order), order)
        return self.answers_whole_paths and forwards and PROCEDURES[self.objective.decoders[0]].takes_prefix

    def slices(self) -> Iterator[Batch]:
        """The graphs in parts that fit one forward pass."""
        for start in range(0, len(self.graphs.prompt), BATCH_ROWS):
            yield self.graphs.rows(start, start + BATCH_ROWS)

    def answers(self, draws: torch.Generator | None = None, *, procedure: str | None = None) -> Int[Tensor, "B L"]:
        """Its answers by its own inference or another procedure: greedy, or sampled from ``draws``."""
        parts = [
            decode(self.trunk, self.objective, rows.prompt, rows.target.shape[1], procedure=procedure, generator=draws)
            for rows in self.slices()
        ]
        return torch.cat(parts)

    @cached_property
    def greedy_answers(self) -> Int[Tensor, "B L"]:
        """Several probes read them."""
        return self.answers()


def count(hits: Bool[Tensor, " B"]) -> Count:
    """Return how many rows of how many."""
    return Count(int(hits.sum()), hits.numel())
