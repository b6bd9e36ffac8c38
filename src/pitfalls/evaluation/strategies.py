"""All decoding strategies on one trained path-star model: the share of right answers and the cost of an answer.

A model that cheats is right 1 time in d with every strategy. With k answers and a verifier that knows the right one, its
score is that of k blind guesses of an arm, 1 - (1 - 1/d)^k.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pitfalls.evaluation.decoding import PROCEDURES, decode
from pitfalls.evaluation.score import BATCH_ROWS
from pitfalls.language.generation import RULES, Rule, check_call, generate
from pitfalls.models.trunk import Trunk
from pitfalls.objectives.base import Objective
from pitfalls.objectives.next_token import NextToken
from pitfalls.results.formats import Table
from pitfalls.results.statistics import blind_guess, wilson
from pitfalls.runs.counts import Count
from pitfalls.schemas import ConfigError
from pitfalls.seeding import generator
from pitfalls.tasks.batch import Batch

N_ANSWERS = (2, 4, 8)
"""Numbers of samples k that a verifier chooses from."""
Answers = Callable[[Tensor], Tensor]
"""A function: Long[B,P] prompts -> Long[B,k,L] answers in canonical order, k to each prompt."""
Tell = Callable[[int, int], object]
"""A function: (number done, number in all) -> nothing."""


@dataclass(frozen=True)
class StrategyScore:
    """The score of one strategy."""

    name: str
    solved: Count
    """Count of graphs with the right path among the answers."""
    guess: float
    """Share of graphs solved by a model that guesses the arm and reads off the rest."""
    passes: float
    """Number of sequences that the trunk reads per graph. A beam counts as one."""
    graphs_per_s: float
    """Graphs answered per second of wall time."""


def score_strategies(
    trunk: Trunk,
    objective: Objective,
    graphs: Batch,
    degree: int,
    seed: int,
    assistant: PreTrainedModel | None = None,
    tell: Tell = lambda done, total: None,
) -> list[StrategyScore]:
    """Return the score of every strategy that fits the objective.

    Args:
        trunk: the trunk, in eval mode.
        objective: the objective that it was trained by.
        graphs: B rows in canonical order, on the trunk's device.
        degree: number of arms d.
        seed: seed of the samples.
        assistant: a model of the same vocabulary that drafts answers, one prompt at a time.
        tell: it is told how many answers are written, and of how many.

    Raises:
        ConfigError: the assistant does not fit. This is checked before any compute.
    """
    if assistant is not None:
        if not _reads_the_head(trunk, objective):
            name = type(objective).__name__
            raise ConfigError(
                f"--assistant: {name} does not answer from its model's next-token logits, so no draft helps it; leave this out"
            )
        check_call(trunk.lm, graphs.prompt[:1], objective.written_length(graphs.target.shape[1]), "ignore", assistant)
    strategies = list(_strategies(trunk, objective, graphs.target.shape[1], seed, assistant))
    n = len(graphs.prompt)
    return [
        _score(trunk, name, answers, graphs, blind_guess(degree, n_answers), partial(_told, tell, i * n, len(strategies) * n))
        for i, (name, n_answers, answers) in enumerate(strategies)
    ]


def _told(tell: Tell, before: int, total: int, done: int) -> None:
    """Tell the number of answers of all strategies, from that of one strategy."""
    tell(before + done, total)


def _strategies(
    trunk: Trunk, objective: Objective, length: int, seed: int, assistant: PreTrainedModel | None
) -> Iterator[tuple[str, int, Answers]]:
    """Yield the name of each strategy, its number of answers k, and the strategy."""
    n_written = objective.written_length(length)

    def own(procedure: str, prompt: Tensor) -> Tensor:
        return decode(trunk, objective, prompt, length, procedure=procedure)[:, None]

    def by_rule(rule: Rule, prompt: Tensor) -> Tensor:
        return objective.unview(generate(trunk.lm, prompt, n_written, rule, seed=seed, end="ignore"))[:, None]

    def several(k: int, draws: torch.Generator, prompt: Tensor) -> Tensor:
        return torch.stack([decode(trunk, objective, prompt, length, generator=draws) for _ in range(k)], 1)

    for procedure in objective.decoders:
        if not (PROCEDURES[procedure].needs_masks and trunk.recurrent):
            yield procedure.replace("_", " "), 1, partial(own, procedure)
    if _reads_the_head(trunk, objective):
        for rule in RULES:
            yield f"generate: {rule.name}", 1, partial(by_rule, rule)
        if assistant is not None:
            yield "generate: greedy, assisted", 1, partial(_assisted, trunk, objective, n_written, assistant)
    for k in N_ANSWERS:
        yield f"best of {k} samples, verified", k, partial(several, k, generator(seed, "decode", 0, trunk.lm.device))


def _reads_the_head(trunk: Trunk, objective: Objective) -> bool:
    """Return whether the objective's next-token logits are those that `generate` reads."""
    return type(objective).step_logits is NextToken.step_logits and trunk.token_ids is None


def _assisted(trunk: Trunk, objective: Objective, n_written: int, assistant: PreTrainedModel, prompt: Tensor) -> Tensor:
    """Return greedy answers with drafts of the assistant, row by row: transformers takes one prompt at a time."""
    rows = [generate(trunk.lm, row, n_written, RULES[0], end="ignore", assistant=assistant) for row in prompt[:, None]]
    return objective.unview(torch.cat(rows))[:, None]


def _score(
    trunk: Trunk, name: str, answers: Answers, graphs: Batch, guess: float, told: Callable[[int], object]
) -> StrategyScore:
    """Answer all graphs, and return the counts of right answers, sequences and seconds. ``told`` gets the number answered."""
    n_read, n_right, n_graphs = 0, 0, len(graphs.prompt)

    def count(module: torch.nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor | None]) -> None:
        nonlocal n_read
        read = next(x for x in (kwargs.get("inputs_embeds"), kwargs.get("input_ids"), *args) if x is not None)
        n_read += len(read)

    handle = trunk.lm.base_model.register_forward_pre_hook(count, with_kwargs=True)
    started = time.perf_counter()
    try:
        with torch.no_grad():
            for start in range(0, n_graphs, BATCH_ROWS):
                rows = graphs.rows(start, start + BATCH_ROWS)
                n_right += int((answers(rows.prompt) == rows.target[:, None]).all(2).any(1).sum())
                told(min(start + BATCH_ROWS, n_graphs))
    finally:
        handle.remove()
    seconds = time.perf_counter() - started
    return StrategyScore(name, Count(n_right, n_graphs), guess, n_read / n_graphs, n_graphs / seconds)


def strategy_table(scores: Sequence[StrategyScore], title: str) -> Table:
    """Return the scores as a table, one row per strategy."""
    rows = []
    for score in scores:
        low, high = wilson(score.solved.k, score.solved.n)
        match = (f"{score.solved.k / score.solved.n:.3f}", f"{low:.3f} to {high:.3f}", f"{score.guess:.3f}")
        rows.append((score.name, *match, f"{score.passes:.2f}", f"{score.graphs_per_s:,.0f}"))
    header = ("strategy", "exact match", "95 % interval", "a guess of the arm", "sequences read", "graphs/s")
    return Table(title, header, tuple(rows), "Sequences read are per graph; a beam counts as one.")
