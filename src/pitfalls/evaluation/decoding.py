"""Procedures that turn a prompt into an answer; which of them fit is the objective's to say (`Objective.decoders`)."""

import itertools
import sys
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pitfalls.models.trunk import Hidden, Trunk
from pitfalls.objectives.base import Objective
from pitfalls.schemas import ConfigError

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
        ConfigError: the objective has no such procedure.
    """
    procedure = objective.decoders[0] if procedure is None else procedure
    if procedure not in objective.decoders:
        raise ConfigError(f"{type(objective).__name__} decodes by {' or '.join(objective.decoders)}, not by {procedure}")
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
    cache = trunk.new_cache(prompt.shape[1] + length - 1)
    new, answer = prompt, prompt.new_empty(len(prompt), 0)
    for i in range(length):
        picked = pick(objective.step_logits(trunk, new, cache))[:, None]
        new = picked if prefix is None or i >= prefix.shape[1] else prefix[:, i : i + 1]
        answer = torch.cat([answer, new], 1)
    return answer


def autoregressive_uncached(trunk: Trunk, objective: Objective, prompt: Int[Tensor, "B P"], length: int) -> Int[Tensor, "B L"]:
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
        sequence = torch.cat([sequence, pick(objective.draft_logits(trunk, trunk(sequence, before_last_block=True)))], 1)
    return sequence[:, prompt.shape[1] : prompt.shape[1] + length]


def self_speculative(
    trunk: Trunk, objective: Objective, prompt: Int[Tensor, "B P"], length: int, pick: Pick = greedy
) -> Int[Tensor, "B L"]:
    """Blockwise parallel decoding (Stern et al. 2018): what the heads draft is kept as far as the next token agrees with it.

    The answers are those of `autoregressive`, token for token; sampled ones have its distribution: every token is drawn from the
    model's own next-token distribution, and a draft only says which of them could be drawn in one pass.
    """
    return _speculate(trunk, objective, prompt, length, pick, 1)


def tree(trunk: Trunk, objective: Objective, prompt: Int[Tensor, "B P"], length: int, pick: Pick = greedy) -> Int[Tensor, "B L"]:
    """The same with the two best tokens of every head, all their combinations verified in one pass (Medusa, arXiv 2401.10774)."""
    return _speculate(trunk, objective, prompt, length, pick, 2)


def _speculate(
    trunk: Trunk, objective: Objective, prompt: Int[Tensor, "B P"], length: int, pick: Pick, n_branches: int
) -> Int[Tensor, "B L"]:
    """Verify the drafts of all rows that are equally far, in one pass, until every answer is whole."""
    answer = prompt.new_zeros(len(prompt), length)
    n_known = prompt.new_zeros(len(prompt))
    drafts = prompt.new_zeros(len(prompt), length, n_branches)  # the best tokens for what comes next, by depth
    n_deep = 0  # nothing is drafted before the first pass
    while bool((n_known < length).any()):
        n = int(n_known.min())
        rows = (n_known == n).nonzero()[:, 0]
        known = torch.cat([prompt[rows], answer[rows, :n]], 1)
        tokens, n_agreed, follow_up = _verify(trunk, objective, known, drafts[rows, : min(n_deep, length - n - 1)], pick)
        n_deep = min(follow_up.shape[1], length, MAX_DEPTH[n_branches])
        places = torch.arange(tokens.shape[1], device=prompt.device)
        new = places <= n_agreed[:, None]
        answer[rows, n : n + tokens.shape[1]] = torch.where(new, tokens, 0)
        n_known[rows] = n + 1 + n_agreed
        drafts[rows, :n_deep] = follow_up[:, :n_deep].topk(n_branches, -1).indices
    return answer


def _verify(
    trunk: Trunk, objective: Objective, known: Int[Tensor, "B T"], draft: Int[Tensor, "B m b"], pick: Pick
) -> tuple[Int[Tensor, "B n"], Int[Tensor, " B"], Float[Tensor, "B h V"]]:
    """One pass over what is known and a tree of drafts, in which a node has b children.

    Returns:
        m+1 picked tokens, of which the first and as many more hold as the branch that they follow agrees with them; that number;
        and what the heads say next at the end of that branch.
    """
    (n_rows, n_known), (n_deep, n_branches) = known.shape, draft.shape[1:]
    paths = [path for depth in range(n_deep + 1) for path in itertools.product(range(n_branches), repeat=depth)]
    node = {path: i for i, path in enumerate(paths)}  # 0 is the last known token, the root
    drafted = [draft[:, len(path) - 1, path[-1]] for path in paths[1:]]
    inputs = torch.cat([known, torch.stack(drafted, 1)], 1) if drafted else known
    tree = {} if n_branches == 1 else _tree_inputs(node, n_known, known.device)
    hidden = trunk(inputs, before_last_block=True, **tree)
    picked = pick(trunk.logits(hidden.normed[:, n_known - 1 :]))
    children = torch.tensor([[node.get((*path, i), 0) for i in range(n_branches)] for path in paths], device=known.device)
    rows = torch.arange(n_rows, device=known.device)
    walk = known.new_zeros(n_rows, n_deep + 1)  # nodes from the root on
    agrees, n_agreed = torch.ones_like(rows, dtype=torch.bool), torch.zeros_like(rows)
    for depth in range(n_deep):
        at = walk[:, depth]
        match = draft[:, depth] == picked[rows, at][:, None]
        agrees = agrees & match.any(1)
        walk[:, depth + 1] = children[at, match.int().argmax(1)]
        n_agreed += agrees
    follow_up: dict[int, Tensor] = {}
    for n in n_agreed.unique().tolist():  # the heads read a sequence, without the branches that were not taken
        chosen = (n_agreed == n).nonzero()[:, 0]
        past = torch.arange(n_known, device=known.device).expand(len(chosen), -1)
        read = torch.cat([past, walk[chosen, 1 : n + 1] + n_known - 1], 1)
        logits = objective.draft_logits(trunk, Hidden(*(states[chosen[:, None], read] for states in hidden)))[:, 1:]
        follow_up |= dict(zip(chosen.tolist(), logits, strict=True))
    return picked.gather(1, walk), n_agreed, torch.stack([follow_up[row] for row in range(n_rows)])


def _tree_inputs(node: Mapping[tuple[int, ...], int], n_known: int, device: torch.device) -> dict[str, Tensor]:
    """Positions and mask of a tree behind n_known tokens: a node stands at its depth and sees what is known and its ancestors."""
    first = n_known - 1  # where the root stands
    mask = torch.ones(first + len(node), first + len(node), dtype=torch.bool, device=device).tril()
    mask[n_known:, n_known:] = False
    positions = list(range(n_known))
    for path, i in list(node.items())[1:]:
        mask[first + i, [first + node[path[: depth + 1]] for depth in range(len(path))]] = True
        positions.append(first + len(path))
    return {"positions": torch.tensor(positions, device=device)[None], "mask": mask[None]}


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
    "self_speculative": self_speculative,
    "tree": tree,
}
"""By the name that `Objective.decoders` has."""

MAX_DEPTH = {1: sys.maxsize, 2: 5}
"""Of drafts by branches: a tree of two has 2^(depth + 1) - 1 nodes."""

NEEDS_MASKS = frozenset({"tree"})
"""Those that a recurrent trunk refuses, whatever the objective."""

CONTINUING: dict[str, Callable[..., Tensor]] = {"autoregressive": autoregressive, "confidence": confidence}
"""Those that can go on from the beginning of an answer that is put into the model's mouth (``prefix``)."""

SAME_ANSWERS = ("self_speculative", "tree")
"""Those that answer as `autoregressive` does, in fewer passes."""
