"""What every way of decoding makes of one trained path-star model: how often it is right, and what an answer costs.

A model that cheats is right 1 time in d, however its answers are chosen; k answers and a verifier that knows the right one get
1 - (1 - 1/d)^k, what k blind guesses of an arm get.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pitfalls.evaluation.decoding import NEEDS_MASKS, decode
from pitfalls.evaluation.score import BATCH_ROWS, Count
from pitfalls.language.generation import RULES, Rule, check_call, generate
from pitfalls.models.trunk import Trunk
from pitfalls.objectives.base import Objective
from pitfalls.objectives.next_token import NextToken
from pitfalls.schemas import ConfigError
from pitfalls.seeding import generator
from pitfalls.tasks.batch import Batch

N_ANSWERS = (2, 4, 8)
Answers = Callable[[Tensor], Tensor]
"""Long[B,P] prompts -> Long[B,k,L], k answers each in canonical order."""


@dataclass(frozen=True)
class Row:
    """One strategy."""

    name: str
    solved: Count
    """Graphs with the right path among the answers."""
    cheat: float
    """The share that a model gets which guesses the arm and reads off the rest."""
    passes: float
    """Sequences that the trunk read per graph; a beam counts as one."""
    graphs_per_s: float


def measure(
    trunk: Trunk, objective: Objective, graphs: Batch, degree: int, seed: int, assistant: PreTrainedModel | None = None
) -> list[Row]:
    """Every strategy that fits the method.

    Args:
        trunk: in eval mode.
        objective: the method.
        graphs: B rows in canonical order, on the trunk's device.
        degree: d.
        seed: of what is sampled.
        assistant: a model of the same vocabulary that drafts answers, one prompt at a time.

    Raises:
        ConfigError: the assistant does not fit.
    """
    if assistant is not None:
        if not _reads_the_head(trunk, objective):
            name = type(objective).__name__
            raise ConfigError(f"{name} does not answer from its model's next-token logits; leave the assistant out")
        check_call(trunk.lm, graphs.prompt[:1], graphs.target.shape[1], "ignore", assistant)
    return [
        _measured(trunk, name, n_answers, answers, graphs, 1 - (1 - 1 / degree) ** n_answers)
        for name, n_answers, answers in _strategies(trunk, objective, graphs.target.shape[1], seed, assistant)
    ]


def _strategies(
    trunk: Trunk, objective: Objective, length: int, seed: int, assistant: PreTrainedModel | None
) -> Iterator[tuple[str, int, Answers]]:
    """Names, numbers of answers, and the strategies."""

    def own(procedure: str, prompt: Tensor) -> Tensor:
        return decode(trunk, objective, prompt, length, procedure=procedure)[:, None]

    def by_rule(rule: Rule, prompt: Tensor) -> Tensor:
        return objective.unview(generate(trunk.lm, prompt, length, rule, seed=seed, end="ignore"))[:, None]

    def several(k: int, draws: torch.Generator, prompt: Tensor) -> Tensor:
        return torch.stack([decode(trunk, objective, prompt, length, generator=draws) for _ in range(k)], 1)

    for procedure in objective.decoders:
        if procedure not in NEEDS_MASKS or not trunk.recurrent:
            yield procedure.replace("_", " "), 1, partial(own, procedure)
    if _reads_the_head(trunk, objective):
        for rule in RULES:
            yield f"generate: {rule.name}", 1, partial(by_rule, rule)
        if assistant is not None:
            yield "generate: greedy, assisted", 1, partial(_assisted, trunk, objective, length, assistant)
    for k in N_ANSWERS:
        yield f"best of {k} samples, verified", k, partial(several, k, generator(seed, "decode", 0, trunk.lm.device))


def _reads_the_head(trunk: Trunk, objective: Objective) -> bool:
    """Whether the objective's next token is what `generate` would read."""
    return type(objective).step_logits is NextToken.step_logits and trunk.token_ids is None


def _assisted(trunk: Trunk, objective: Objective, length: int, assistant: PreTrainedModel, prompt: Tensor) -> Tensor:
    """Row by row, as transformers has it."""
    rows = [generate(trunk.lm, row, length, RULES[0], end="ignore", assistant=assistant) for row in prompt[:, None]]
    return objective.unview(torch.cat(rows))[:, None]


def _measured(trunk: Trunk, name: str, n_answers: int, answers: Answers, graphs: Batch, cheat: float) -> Row:
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
    finally:
        handle.remove()
    seconds = time.perf_counter() - started
    return Row(name, Count(n_right, n_graphs), cheat, n_read / n_graphs, n_graphs / seconds)
