"""The evaluation: one function that scores every objective, model and decoding procedure on the same rows, as counts."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from operator import add

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pitfalls import metrics
from pitfalls.evaluation.decoding import decode
from pitfalls.models.trunk import Trunk
from pitfalls.objectives.base import Objective
from pitfalls.runs.counts import FIRST_HOP, Count, Evaluation
from pitfalls.runs.records import Example, Reading
from pitfalls.tasks.batch import Batch
from pitfalls.tasks.path_star import Outcome, PathStar

BATCH_ROWS = 1000
"""Number of rows in one forward pass of an evaluation."""


def evaluate(
    trunk: Trunk,
    objective: Objective,
    task: PathStar,
    batch: Batch,
    *,
    procedure: str | None = None,
    batch_rows: int = BATCH_ROWS,
) -> Evaluation:
    """Return the counts of an objective's answers, and of its predictions under teacher forcing, over all rows of ``batch``.

    Args:
        trunk: the model. Its train/eval mode is restored.
        objective: the objective that it was trained by.
        task: the task, which judges the answers as walks.
        batch: at least one row, in canonical order.
        procedure: a decoding procedure, by default the objective's own.
        batch_rows: rows per forward pass. It bounds the memory and changes no count.

    Raises:
        ConfigError: the objective has no such procedure.
        ValueError: the batch is empty.
    """
    if not len(batch.prompt):
        raise ValueError("nothing to evaluate: the batch is empty")
    with _in_eval_mode(trunk):
        return reduce(add, (_evaluate_rows(trunk, objective, task, rows, procedure) for rows in _slices(batch, batch_rows)))


def exact_rows(trunk: Trunk, objective: Objective, batch: Batch, *, batch_rows: int = BATCH_ROWS) -> Bool[Tensor, " B"]:
    """Return which rows of a batch the objective's own inference answers with every token right, on the batch's device.

    The arguments are those of `evaluate`, which counts the same answers.
    """
    with _in_eval_mode(trunk):
        parts = [
            metrics.correct(decode(trunk, objective, rows.prompt, rows.target.shape[1]), rows.target).all(1)
            for rows in _slices(batch, batch_rows)
        ]
    return torch.cat(parts)


@contextmanager
def _in_eval_mode(trunk: Trunk) -> Iterator[None]:
    """Put a trunk into eval mode without gradients, and restore its mode afterwards."""
    was_training = trunk.training
    trunk.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        trunk.train(was_training)


def _slices(batch: Batch, size: int) -> Iterator[Batch]:
    for start in range(0, len(batch.prompt), size):
        yield batch.rows(start, start + size)


def _evaluate_rows(trunk: Trunk, objective: Objective, task: PathStar, batch: Batch, procedure: str | None) -> Evaluation:
    answer = decode(trunk, objective, batch.prompt, batch.target.shape[1], procedure=procedure)
    forced = forced_answer(trunk, objective, batch)
    return score(answer, forced, batch, task, objective.supervised(), decoder=procedure or objective.decoders[0])


def forced_answer(trunk: Trunk, objective: Objective, batch: Batch) -> Int[Tensor, "B L"] | None:
    """Return the most probable token at each position given the gold tokens before it, in canonical order.

    None means that the objective has no prediction under teacher forcing.
    """
    logits = objective.forced_logits(trunk, objective.view(batch))
    return None if logits is None else objective.unview(logits.argmax(-1))


def forced_entropy(trunk: Trunk, objective: Objective, batch: Batch) -> Float[Tensor, "B L"] | None:
    """Return the entropy in nats of each position's prediction given the gold tokens before it, in canonical order.

    None means that the objective has no prediction under teacher forcing.
    """
    with torch.no_grad():
        logits = objective.forced_logits(trunk, objective.view(batch))
    return None if logits is None else metrics.entropy(logits)[:, objective.places(batch.target.shape[1])]


def read_answers(trunk: Trunk, objective: Objective, batch: Batch, answer: Int[Tensor, "B L"]) -> list[Reading] | None:
    """Return the model's predictions while it wrote its answers, one reading per row, in canonical order.

    Args:
        trunk: the model.
        objective: the objective that it was trained by.
        batch: prompts with the right targets.
        answer: the model's answers to the prompts. Each token is predicted given the answer's own tokens before it, in the
            order of the objective's view.

    Returns:
        Probabilities and entropies to four decimals, or None if the objective has no prediction under teacher forcing.
    """
    viewed = objective.view(Batch(batch.prompt, answer))
    with torch.no_grad():
        logits = objective.forced_logits(trunk, viewed)
    if logits is None:
        return None
    p_answer = torch.exp(-metrics.negative_log_likelihood(logits, viewed.target))
    p_target = torch.exp(-metrics.negative_log_likelihood(logits, objective.view(batch).target))
    places = objective.places(batch.target.shape[1])
    parts = [_rounded(values[:, places]) for values in (p_answer, p_target, metrics.entropy(logits))]
    return [Reading(*rows) for rows in zip(*parts, strict=True)]


def _rounded(values: Float[Tensor, "B L"]) -> list[list[float]]:
    return [[round(value, 4) for value in row] for row in values.tolist()]


def examples(trunk: Trunk, objective: Objective, task: PathStar, batch: Batch) -> list[Example]:
    """Return the graphs of a batch, each with the model's greedy answer, token by token."""
    answer = decode(trunk, objective, batch.prompt, batch.target.shape[1])
    readings = read_answers(trunk, objective, batch, answer)
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
            reading=None if readings is None else readings[row],
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
    """Return the counts of answers against the targets. All tokens are in canonical order.

    Args:
        answer: the answers of the objective's own inference.
        forced: predictions given the gold tokens before each position, or None if the objective has none.
        batch: prompts and targets.
        task: the task, which judges the answers as walks.
        supervised: the target positions that mean something. If these are not all positions, counts of whole paths have n = 0.
        decoder: the name of the decoding procedure.
    """
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
