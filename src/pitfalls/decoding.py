"""Procedures that turn a prompt into an answer; which of them fit is the objective's to say (`Objective.decoders`)."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
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


def blockwise(
    trunk: Trunk, objective: Objective, prompt: Int[Tensor, "B P"], length: int, pick: Pick = greedy
) -> Int[Tensor, "B L"]:
    """Several tokens per pass, all of them kept (blockwise parallel decoding without its verification, Stern et al. 2018)."""
    sequence = prompt
    while sequence.shape[1] < prompt.shape[1] + length:
        sequence = torch.cat([sequence, pick(objective.draft_logits(trunk, trunk(sequence)))], 1)
    return sequence[:, prompt.shape[1] : prompt.shape[1] + length]


def confidence(
    trunk: Trunk,
    objective: Objective,
    prompt: Int[Tensor, "B P"],
    length: int,
    pick: Pick = greedy,
    *,
    prefix: Int[Tensor, "B F"] | None = None,
) -> Int[Tensor, "B L"]:
    """One token per pass into a masked answer (all but ``prefix``), each row the one that it is most certain of."""

    def surest(logits: Float[Tensor, "B L V"], masked: Bool[Tensor, "B L"]) -> Int[Tensor, " B"]:
        return logits.log_softmax(-1).amax(-1).masked_fill(~masked, -torch.inf).argmax(1)

    return _unmask(trunk, objective, prompt, length, pick, surest, prefix)


def left_to_right(
    trunk: Trunk, objective: Objective, prompt: Int[Tensor, "B P"], length: int, pick: Pick = greedy
) -> Int[Tensor, "B L"]:
    """One token per pass into a masked answer, from the start on."""
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
    """One token per pass from the last slot to the first, of a method that writes in any order."""
    slots = torch.arange(length - 1, -1, -1, device=prompt.device).expand(len(prompt), length)
    tokens = prompt.new_empty(len(prompt), 0)
    for i in range(length):
        logits = objective.slot_logits(trunk, prompt, tokens, slots[:, : i + 1])
        tokens = torch.cat([tokens, pick(logits)[:, None]], 1)
    return tokens.flip(1)


def lookahead(
    trunk: Trunk, objective: Objective, prompt: Int[Tensor, "B P"], length: int, pick: Pick = greedy
) -> Int[Tensor, "B L"]:
    """The model is made to write a span of its future first, ``<T> z </T>``, and then answers.

    A z has at most ``length`` tokens; one that is not closed by then is closed.
    """
    opened, closed = (prompt.new_full((len(prompt), 1), objective.spec.vocabulary.id(symbol)) for symbol in ("<T>", "</T>"))
    begun = torch.cat([prompt, opened], 1)
    written = torch.cat([autoregressive(trunk, objective, begun, length, pick), closed], 1)
    n_written = (written == closed).int().argmax(1)
    answer = prompt.new_empty(len(prompt), length)
    for n in n_written.unique().tolist():  # rows whose z is equally long are decoded together
        rows = n_written == n
        read = torch.cat([begun[rows], written[rows, :n], closed[rows]], 1)
        answer[rows] = autoregressive(trunk, objective, read, length, pick)
    return answer


PROCEDURES: dict[str, Callable[[Trunk, Objective, Tensor, int, Pick], Tensor]] = {
    "autoregressive": autoregressive,
    "blockwise": blockwise,
    "confidence": confidence,
    "goal_first": goal_first,
    "left_to_right": left_to_right,
    "lookahead": lookahead,
    "parallel": parallel,
}
"""By the name that `Objective.decoders` has."""

CONTINUING: dict[str, Callable[..., Tensor]] = {"autoregressive": autoregressive, "confidence": confidence}
"""Those that can go on from the beginning of an answer that is put into the model's mouth (``prefix``)."""
