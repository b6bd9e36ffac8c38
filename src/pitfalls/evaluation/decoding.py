"""Procedures that turn a prompt into an answer. An objective names those that fit it (`Objective.decoders`)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pitfalls.evaluation import speculative
from pitfalls.evaluation.picking import Pick, greedy, sampling
from pitfalls.models.trunk import Trunk
from pitfalls.objectives.base import Objective
from pitfalls.schemas import ConfigError


def decode(
    trunk: Trunk,
    objective: Objective,
    prompt: Int[Tensor, "B P"],
    length: int,
    *,
    procedure: str | None = None,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "B L"]:
    """Return answers in canonical order (start .. goal), whatever order the objective was trained in.

    Args:
        trunk: the model.
        objective: the objective, which knows how the logits are read.
        prompt: B prompts.
        length: number of target tokens L.
        procedure: a key of ``PROCEDURES``, by default the objective's own inference.
        generator: random stream from which every token is sampled at temperature 1. Without it, answers are greedy.

    Raises:
        ConfigError: the objective has no such procedure, or a recurrent trunk cannot follow it.
    """
    procedure = objective.decoders[0] if procedure is None else procedure
    if procedure not in objective.decoders:
        raise ConfigError(
            f"{procedure}: {type(objective).__name__} cannot decode by it; choose one of {', '.join(objective.decoders)}"
        )
    if PROCEDURES[procedure].needs_masks and trunk.recurrent:
        raise ConfigError(
            f"{procedure}: the model is recurrent and takes no mask; choose another of {', '.join(objective.decoders)}"
        )
    pick = greedy if generator is None else sampling(generator)
    with torch.no_grad():
        written = PROCEDURES[procedure].answer(trunk, objective, prompt, objective.written_length(length), pick)
        return objective.unview(written)


def autoregressive(
    trunk: Trunk,
    objective: Objective,
    prompt: Int[Tensor, "B P"],
    length: int,
    pick: Pick = greedy,
    *,
    prefix: Int[Tensor, "B F"] | None = None,
) -> Int[Tensor, "B L"]:
    """Return answers token by token, each from the model's own earlier tokens. With a cache, the prompt is read once.

    Args:
        trunk: the model.
        objective: an objective with `Objective.step_logits`.
        prompt: B prompts.
        length: number of target tokens L.
        pick: picks a token from logits.
        prefix: the given first F tokens of each answer. The other tokens are conditioned on them.
    """
    cache = trunk.new_cache(prompt.shape[1] + length - 1)
    new, answer = prompt, prompt.new_empty(len(prompt), 0)
    for i in range(length):
        picked = pick(objective.step_logits(trunk, new, cache))[:, None]
        new = picked if prefix is None or i >= prefix.shape[1] else prefix[:, i : i + 1]
        answer = torch.cat([answer, new], 1)
    return answer


def autoregressive_uncached(trunk: Trunk, objective: Objective, prompt: Int[Tensor, "B P"], length: int) -> Int[Tensor, "B L"]:
    """Return the answers of `autoregressive` without a cache: every step reads the whole sequence. Tests compare the two."""
    sequence = prompt
    for _ in range(length):
        sequence = torch.cat([sequence, objective.step_logits(trunk, sequence, None).argmax(-1, keepdim=True)], 1)
    return sequence[:, prompt.shape[1] :]


def parallel(
    trunk: Trunk, objective: Objective, prompt: Int[Tensor, "B P"], length: int, pick: Pick = greedy
) -> Int[Tensor, "B L"]:
    """Return answers whose tokens all come from one pass."""
    return pick(objective.parallel_logits(trunk, prompt, length))


def confidence(
    trunk: Trunk,
    objective: Objective,
    prompt: Int[Tensor, "B P"],
    length: int,
    pick: Pick = greedy,
    *,
    prefix: Int[Tensor, "B F"] | None = None,
) -> Int[Tensor, "B L"]:
    """Return answers that are filled in one token per pass. Each row fills the position that it is most certain of.

    All positions are masked at first, except those of ``prefix``.
    """

    def surest(logits: Float[Tensor, "B L V"], masked: Bool[Tensor, "B L"]) -> Int[Tensor, " B"]:
        return logits.log_softmax(-1).amax(-1).masked_fill(~masked, -torch.inf).argmax(1)

    return _unmask(trunk, objective, prompt, length, pick, surest, prefix)


def left_to_right(
    trunk: Trunk, objective: Objective, prompt: Int[Tensor, "B P"], length: int, pick: Pick = greedy
) -> Int[Tensor, "B L"]:
    """Return answers that are filled in one token per pass, from the start to the goal."""
    return _unmask(trunk, objective, prompt, length, pick, lambda logits, masked: masked.int().argmax(1))


def _unmask(
    trunk: Trunk,
    objective: Objective,
    prompt: Int[Tensor, "B P"],
    length: int,
    pick: Pick,
    choose: Callable[[Tensor, Tensor], Tensor],
    prefix: Int[Tensor, "B F"] | None = None,
) -> Int[Tensor, "B L"]:
    """Return answers that are filled in one token per pass, at the positions that ``choose`` returns.

    Args:
        trunk: the model.
        objective: an objective with `Objective.infill_logits`.
        prompt: B prompts.
        length: number of target tokens L.
        pick: picks a token from logits.
        choose: (Float[B,L,V] logits, Bool[B,L] masked) -> Long[B] a masked position per row.
        prefix: first F tokens of each answer, which are given.
    """
    masked = torch.ones(len(prompt), length, dtype=torch.bool, device=prompt.device)
    answer = prompt.new_full((len(prompt), length), objective.spec.vocabulary.id("<mask>"))
    if prefix is not None:
        answer[:, : prefix.shape[1]] = prefix
        masked[:, : prefix.shape[1]] = False
    rows = torch.arange(len(prompt), device=prompt.device)
    for _ in range(int(masked[0].sum())):
        logits = objective.infill_logits(trunk, prompt, answer)
        place = choose(logits, masked)
        answer[rows, place] = pick(logits)[rows, place]
        masked[rows, place] = False
    return answer


def goal_first(
    trunk: Trunk, objective: Objective, prompt: Int[Tensor, "B P"], length: int, pick: Pick = greedy
) -> Int[Tensor, "B L"]:
    """Return answers written one token per pass from the goal to the start, by a method that can answer in any order."""
    slots = torch.arange(length - 1, -1, -1, device=prompt.device).expand(len(prompt), length)
    tokens = prompt.new_empty(len(prompt), 0)
    for i in range(length):
        logits = objective.slot_logits(trunk, prompt, tokens, slots[:, : i + 1])
        tokens = torch.cat([tokens, pick(logits)[:, None]], 1)
    return tokens.flip(1)


def lookahead(
    trunk: Trunk, objective: Objective, prompt: Int[Tensor, "B P"], length: int, pick: Pick = greedy
) -> Int[Tensor, "B L"]:
    """Return answers after a span ``<T> z </T>``, in which the model first has to predict a piece of its own answer.

    A span that is not closed after ``length`` tokens is closed there.
    """
    opened, closed = (prompt.new_full((len(prompt), 1), objective.spec.vocabulary.id(symbol)) for symbol in ("<T>", "</T>"))
    begun = torch.cat([prompt, opened], 1)
    written = torch.cat([autoregressive(trunk, objective, begun, length, pick), closed], 1)
    n_written = (written == closed).int().argmax(1)
    answer = prompt.new_empty(len(prompt), length)
    for n in n_written.unique().tolist():  # rows with equally long spans are decoded together
        rows = n_written == n
        read = torch.cat([begun[rows], written[rows, :n], closed[rows]], 1)
        answer[rows] = autoregressive(trunk, objective, read, length, pick)
    return answer


@dataclass(frozen=True)
class Procedure:
    """A decoding procedure and its properties."""

    answer: Callable[..., Tensor]
    """(trunk, objective, prompt, W, pick) -> Long[B,W] tokens as the objective writes them (`Objective.view`)."""
    takes_prefix: bool = False
    """Whether it can continue given first tokens of the answer (``prefix``)."""
    needs_masks: bool = False
    """Whether it sets masks and positions of its own, so that a recurrent trunk refuses it."""
    same_as_autoregressive: bool = False
    """Whether its answers are those of ``autoregressive``, in fewer passes."""


PROCEDURES: dict[str, Procedure] = {
    "autoregressive": Procedure(autoregressive, takes_prefix=True),
    "blockwise": Procedure(speculative.blockwise),
    "confidence": Procedure(confidence, takes_prefix=True),
    "goal_first": Procedure(goal_first),
    "left_to_right": Procedure(left_to_right),
    "lookahead": Procedure(lookahead),
    "parallel": Procedure(parallel),
    "self_speculative": Procedure(speculative.self_speculative, same_as_autoregressive=True),
    "tree": Procedure(speculative.tree, needs_masks=True, same_as_autoregressive=True),
}
"""The decoding procedures by the names in `Objective.decoders`."""
