"""Procedures that turn a prompt into an answer; which of them fit is the objective's to say (`Objective.decoders`)."""

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from pitfalls.models.trunk import Trunk
from pitfalls.objectives.base import Objective


def decode(
    trunk: Trunk, objective: Objective, prompt: Int[Tensor, "B P"], length: int, *, procedure: str | None = None
) -> Int[Tensor, "B L"]:
    """Greedy answers in canonical order (start .. goal), whatever order the objective was trained in.

    Args:
        trunk: the model.
        objective: says how its logits are read.
        prompt: B prompts.
        length: L, target tokens.
        procedure: a key of ``PROCEDURES``; by default the objective's own inference.

    Raises:
        ValueError: the objective has no such procedure.
    """
    procedure = objective.decoders[0] if procedure is None else procedure
    if procedure not in objective.decoders:
        raise ValueError(f"{type(objective).__name__} decodes by {' or '.join(objective.decoders)}, not by {procedure}")
    with torch.no_grad():
        return objective.unview(PROCEDURES[procedure](trunk, objective, prompt, length))


def autoregressive(
    trunk: Trunk, objective: Objective, prompt: Int[Tensor, "B P"], length: int
) -> Int[Tensor, "B L"]:
    """One token after the other from the model's own, with a cache: the prompt is read once."""
    cache, new, answer = trunk.new_cache(), prompt, prompt.new_empty(len(prompt), 0)
    for _ in range(length):
        new = objective.step_logits(trunk, new, cache).argmax(-1, keepdim=True)
        answer = torch.cat([answer, new], 1)
    return answer


def autoregressive_uncached(
    trunk: Trunk, objective: Objective, prompt: Int[Tensor, "B P"], length: int
) -> Int[Tensor, "B L"]:
    """The slow reference of `autoregressive`: every step reads the whole sequence again."""
    sequence = prompt
    for _ in range(length):
        sequence = torch.cat([sequence, objective.step_logits(trunk, sequence, None).argmax(-1, keepdim=True)], 1)
    return sequence[:, prompt.shape[1] :]


def parallel(trunk: Trunk, objective: Objective, prompt: Int[Tensor, "B P"], length: int) -> Int[Tensor, "B L"]:
    """All tokens from one pass."""
    return objective.parallel_logits(trunk, prompt, length).argmax(-1)


PROCEDURES: dict[str, Callable[[Trunk, Objective, Tensor, int], Tensor]] = {
    "autoregressive": autoregressive,
    "parallel": parallel,
}
