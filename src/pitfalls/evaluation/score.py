"""One function scores every objective, model and decoder on the same rows, as counts."""

from collections.abc import Iterator
from functools import reduce
from operator import add
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pitfalls import metrics
from pitfalls.evaluation.decoding import decode
from pitfalls.models.trunk import Trunk
from pitfalls.objectives.base import Objective
from pitfalls.runs.records import FIRST_HOP, Count, Evaluation, Example
from pitfalls.runs.records import Reading as KeptReading
from pitfalls.tasks.batch import Batch
from pitfalls.tasks.path_star import Outcome, PathStar

BATCH_ROWS = 1000


def evaluate(
    trunk: Trunk,
    objective: Objective,
    task: PathStar,
    batch: Batch,
    *,
    procedure: str | None = None,
    batch_rows: int = BATCH_ROWS,
) -> Evaluation:
    """Score an objective's answers, and its teacher-forced reading, on every row of ``batch``.

    Args:
        trunk: the model; its train/eval mode is restored.
        objective: the method.
        task: judges the answers as walks.
        batch: rows in canonical order; empty is an error.
        procedure: a decoding procedure; by default the objective's own.
        batch_rows: rows per forward pass (memory).

    Raises:
        ValueError: the batch is empty, or the objective has no such procedure.
    """
    if not len(batch.prompt):
        raise ValueError("nothing to evaluate: the batch is empty")
    was_training = trunk.training
    trunk.eval()
    try:
        with torch.no_grad():
            parts = [_evaluate_rows(trunk, objective, task, rows, procedure) for rows in _slices(batch, batch_rows)]
    finally:
        trunk.train(was_training)
    return reduce(add, parts)


def _slices(batch: Batch, size: int) -> Iterator[Batch]:
    for start in range(0, len(batch.prompt), size):
        yield batch.rows(start, start + size)


def _evaluate_rows(trunk: Trunk, objective: Objective, task: PathStar, batch: Batch, procedure: str | None) -> Evaluation:
    answer = decode(trunk, objective, batch.prompt, batch.target.shape[1], procedure=procedure)
    forced = forced_answer(trunk, objective, batch)
    return score(answer, forced, batch, task, objective.supervised(), decoder=procedure or objective.decoders[0])


def forced_answer(trunk: Trunk, objective: Objective, batch: Batch) -> Int[Tensor, "B L"] | None:
    """The most probable token at each position given the gold tokens before it, in canonical order."""
    logits = objective.forced_logits(trunk, objective.view(batch))
    return None if logits is None else objective.unview(logits.argmax(-1))


def forced_entropy(trunk: Trunk, objective: Objective, batch: Batch) -> Float[Tensor, "B L"] | None:
    """The entropy in nats of each position's prediction given the gold tokens before it, in canonical order."""
    with torch.no_grad():
        logits = objective.forced_logits(trunk, objective.view(batch))
    return None if logits is None else metrics.entropy(logits)[:, _canonical(objective, batch)]


def _canonical(objective: Objective, batch: Batch) -> Int[Tensor, " L"]:
    """Where each canonical position stands in the order that the objective answers in."""
    return objective.unview(torch.arange(batch.target.shape[1], device=batch.target.device)[None])[0]


class Reading(NamedTuple):
    """What the model held probable while it wrote an answer, per token in canonical order."""

    p_answer: Float[Tensor, "B L"]
    p_target: Float[Tensor, "B L"]
    entropy: Float[Tensor, "B L"]
    """In nats."""


def read_answer(trunk: Trunk, objective: Objective, batch: Batch, answer: Int[Tensor, "B L"]) -> Reading | None:
    """Probabilities and entropies along the objective's own answers: its forced reading of them, None if it has none."""
    viewed = objective.view(Batch(batch.prompt, answer))
    with torch.no_grad():
        logits = objective.forced_logits(trunk, viewed)
    if logits is None:
        return None
    target = objective.view(batch).target
    place = _canonical(objective, batch)
    p_answer, p_target = (torch.exp(-metrics.negative_log_likelihood(logits, t)) for t in (viewed.target, target))
    return Reading(p_answer[:, place], p_target[:, place], metrics.entropy(logits)[:, place])


def examples(trunk: Trunk, objective: Objective, task: PathStar, batch: Batch) -> list[Example]:
    """Return graphs with the model's greedy answers, token by token."""
    answer = decode(trunk, objective, batch.prompt, batch.target.shape[1])
    reading = read_answer(trunk, objective, batch, answer)
    outcomes = [Outcome(k).name.lower() for k in task.verify(batch.prompt, answer).tolist()]
    complete = len(objective.supervised()) == batch.target.shape[1]
    edges, start, goal = (x.tolist() for x in (task.edges(batch.prompt), task.start(batch.prompt), task.goal(batch.prompt)))
    symbol = task.vocabulary.symbol
    return [
        Example(
            edges=[(a, b) for a, b in edges[row]],
            start=start[row],
            goal=goal[row],
            target=[symbol(token) for token in batch.target[row].tolist()],
            answer=[symbol(token) for token in answer[row].tolist()],
            outcome=outcomes[row] if complete else None,
            answered=list(objective.supervised()),
            reading=None if reading is None else KeptReading(*([round(x, 4) for x in part[row].tolist()] for part in reading)),
        )
        for row in range(len(answer))
    ]


def score(
    answer: Int[Tensor, "B L"],
    forced: Int[Tensor, "B L"] | None,
    batch: Batch,
    task: PathStar,
    supervised: tuple[int, ...],
    *,
    decoder: str,
) -> Evaluation:
    """Counts of free answers [B,L] and forced readings [B,L] against the targets; all in canonical order."""
    n_rows, length = batch.target.shape
    complete = len(supervised) == length
    free = metrics.correct(answer, batch.target)
    forced_right = None if forced is None else metrics.n_per_position(metrics.correct(forced, batch.target))
    outcomes = task.verify(batch.prompt, answer).bincount(minlength=len(Outcome)).tolist()
    n_walks = n_rows if complete else 0
    return Evaluation(
        exact_match=Count(metrics.n_exact(free) if complete else 0, n_walks),
        first_hop=Count(int(free[:, FIRST_HOP].sum()), n_rows),
        free_position_accuracy=_per_position(metrics.n_per_position(free), supervised, n_rows),
        forced_position_accuracy=_per_position(forced_right or [0] * length, supervised if forced_right else (), n_rows),
        right_arm=Count(outcomes[Outcome.RIGHT_ARM] if complete else 0, n_walks),
        wrong_arm=Count(outcomes[Outcome.WRONG_ARM] if complete else 0, n_walks),
        wrong_arm_then_goal=Count(outcomes[Outcome.WRONG_ARM_THEN_GOAL] if complete else 0, n_walks),
        broken_walk=Count(outcomes[Outcome.BROKEN_WALK] if complete else 0, n_walks),
        decoder=decoder,
    )


def _per_position(right: list[int], supervised: tuple[int, ...], n_rows: int) -> list[Count]:
    return [Count(k, n_rows) if i in supervised else Count(0, 0) for i, k in enumerate(right)]
