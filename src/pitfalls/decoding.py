"""Procedures that turn a prompt into an answer; which of them fit is the objective's to say (`Objective.decoders`)."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pitfalls.models.trunk import Trunk
from pitfalls.objectives.base import Objective

Pick = Callable[[Tensor], Tensor]
"""Float[..., V] logits -> Long[...] tokens."""


def greedy(logits: Float[Tensor, "*B V"]) -> Int[Tensor, "*B"]:
    """The most probable token."""
    return logits.argmax(-1)


def sampling(generator: torch.Generator) -> Pick:
    """Draws a token from the model's own distribution (temperature 1); every call goes on drawing."""

    def pick(logits: Float[Tensor, "*B V"]) -> Int[Tensor, "*B"]:
        p = logits.float().softmax(-1)
        return torch.multinomial(p.flatten(0, -2), 1, generator=generator).view(p.shape[:-1])

    return pick


def decode(
    trunk: Trunk,
    objective: Objective,
    prompt: Int[Tensor, "B P"],
    length: int,
    *,
    procedure: str | None = None,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "B L"]:
    """Answers in canonical order (start .. goal), whatever order the objective was trained in.

    Args:
        trunk: the model.
        objective: says how its logits are read.
        prompt: B prompts.
        length: L, target tokens.
        procedure: a key of ``PROCEDURES``; by default the objective's own inference.
        generator: samples every token at temperature 1; by default answers are greedy.

    Raises:
        ValueError: the objective has no such procedure.
    """
    procedure = objective.decoders[0] if procedure is None else procedure
    if procedure not in objective.decoders:
        raise ValueError(f"{type(objective).__name__} decodes by {' or '.join(objective.decoders)}, not by {procedure}")
    pick = greedy if generator is None else sampling(generator)
    with torch.no_grad():
        return objective.unview(PROCEDURES[procedure](trunk, objective, prompt, length, pick))


def autoregressive(
    trunk: Trunk,
    objective: Objective,
    prompt: Int[Tensor, "B P"],
    length: int,
    pick: Pick = greedy,
    *,
    prefix: Int[Tensor, "B F"] | None = None,
) -> Int[Tensor, "B L"]:
    """One token after the other from the model's own, with a cache: the prompt is read once.

    ``prefix`` puts words in its mouth: the answer's first F tokens, which the rest is conditioned on.
    """
    cache, new, answer = trunk.new_cache(), prompt, prompt.new_empty(len(prompt), 0)
    for i in range(length):
        picked = pick(objective.step_logits(trunk, new, cache))[:, None]
        new = picked if prefix is None or i >= prefix.shape[1] else prefix[:, i : i + 1]
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


def parallel(
    trunk: Trunk, objective: Objective, prompt: Int[Tensor, "B P"], length: int, pick: Pick = greedy
) -> Int[Tensor, "B L"]:
    """All tokens from one pass."""
    return pick(objective.parallel_logits(trunk, prompt, length))


PROCEDURES: dict[str, Callable[[Trunk, Objective, Tensor, int, Pick], Tensor]] = {
    "autoregressive": autoregressive,
    "parallel": parallel,
}
