"""Decoding with heads that draft several tokens from one state: blockwise, self-speculative, and with a tree of drafts."""

import itertools
import sys

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pitfalls.evaluation.picking import Pick, greedy
from pitfalls.models.trunk import Hidden, Trunk
from pitfalls.objectives.base import Objective

MAX_DEPTH = {1: sys.maxsize, 2: 5}
"""Largest number of tokens of a draft, by branches per token. A tree with two branches has 2^(depth + 1) - 1 nodes."""

Node = tuple[int, ...]
"""A node of a draft tree, as the branches that lead to it from the root. The root, (), is the last known token."""


def blockwise(
    trunk: Trunk, objective: Objective, prompt: Int[Tensor, "B P"], length: int, pick: Pick = greedy
) -> Int[Tensor, "B L"]:
    """Return answers written several tokens per pass, without verification.

    This is the drafting of blockwise parallel decoding (Stern et al. 2018). All drafts are kept.
    """
    sequence = prompt
    while sequence.shape[1] < prompt.shape[1] + length:
        sequence = torch.cat([sequence, pick(objective.draft_logits(trunk, trunk(sequence, before_last_block=True)))], 1)
    return sequence[:, prompt.shape[1] : prompt.shape[1] + length]


def self_speculative(
    trunk: Trunk, objective: Objective, prompt: Int[Tensor, "B P"], length: int, pick: Pick = greedy
) -> Int[Tensor, "B L"]:
    """Return the answers of `autoregressive` in fewer passes: blockwise parallel decoding (Stern et al. 2018).

    The heads draft, and a draft is kept as far as it agrees with the model's own next tokens. Every token is picked from the
    model's own next-token distribution, so greedy answers are the same and samples have the same distribution.
    """
    return _speculate(trunk, objective, prompt, length, pick, 1)


def tree(trunk: Trunk, objective: Objective, prompt: Int[Tensor, "B P"], length: int, pick: Pick = greedy) -> Int[Tensor, "B L"]:
    """Return the answers of `autoregressive` in even fewer passes: each verifies a tree of drafts (Medusa, arXiv 2401.10774).

    The tree holds all combinations of the two best tokens of every head.
    """
    return _speculate(trunk, objective, prompt, length, pick, 2)


def _speculate(
    trunk: Trunk, objective: Objective, prompt: Int[Tensor, "B P"], length: int, pick: Pick, n_branches: int
) -> Int[Tensor, "B L"]:
    """Return the answers of `autoregressive`, sped up by drafts with ``n_branches`` candidates per token."""
    answer = prompt.new_zeros(len(prompt), length)
    n_final = prompt.new_zeros(len(prompt))  # tokens of each answer that will not change
    drafts = prompt.new_zeros(len(prompt), length, n_branches)  # candidates for the tokens after those, by depth
    n_deep = 0  # depth of the drafts; there are none before the first pass
    while bool((n_final < length).any()):
        # Take the rows that are furthest behind. Their sequences are equally long, so one batch needs no padding.
        n = int(n_final.min())
        rows = (n_final == n).nonzero()[:, 0]
        known = torch.cat([prompt[rows], answer[rows, :n]], 1)

        # Verify their drafts. A pass gives one token more than it verifies, so the last token is never drafted.
        draft = drafts[rows, : min(n_deep, length - n - 1)]
        tokens, n_agreed, next_logits = _verify(trunk, objective, known, draft, pick)

        # Keep the tokens that agree with the draft, and the one after them. What follows is rewritten by a later pass.
        new = torch.arange(tokens.shape[1], device=prompt.device) <= n_agreed[:, None]
        answer[rows, n : n + tokens.shape[1]] = torch.where(new, tokens, 0)
        n_final[rows] = n + 1 + n_agreed

        # Draft the tokens after them.
        n_deep = min(next_logits.shape[1], length, MAX_DEPTH[n_branches])
        drafts[rows, :n_deep] = next_logits[:, :n_deep].topk(n_branches, -1).indices
    return answer


def _verify(
    trunk: Trunk, objective: Objective, known: Int[Tensor, "B T"], draft: Int[Tensor, "B m b"], pick: Pick
) -> tuple[Int[Tensor, "B n"], Int[Tensor, " B"], Float[Tensor, "B h V"]]:
    """Verify a draft of m tokens with b candidates each in one pass.

    Returns:
        Three values. First, the n = m + 1 tokens that the model picks along the branch that agrees with it longest. Second, the
        number of them that agree with the draft. The token after those is the model's own as well, and later ones mean nothing.
        Third, the heads' logits for the h tokens after all of these.
    """
    n_known, (n_deep, n_branches) = known.shape[1], draft.shape[1:]

    # Lay the tree out behind the known tokens: node i stands at input position n_known - 1 + i. Node 0 is the last known token.
    nodes: list[Node] = [node for depth in range(n_deep + 1) for node in itertools.product(range(n_branches), repeat=depth)]
    drafted = [draft[:, len(node) - 1, node[-1]] for node in nodes[1:]]
    inputs = torch.cat([known, torch.stack(drafted, 1)], 1) if drafted else known

    # Read all nodes in one pass. A chain (b = 1) needs no mask of its own: the causal one shows a node its ancestors.
    mask_and_positions = {} if n_branches == 1 else _tree_inputs(nodes, n_known, known.device)
    hidden = trunk(inputs, before_last_block=True, **mask_and_positions)
    picked = pick(trunk.logits(hidden.normed[:, n_known - 1 :]))  # per node, the token that the model wants after it

    # Walk down from the root, as long as a child is the token that the model wants.
    index = {node: i for i, node in enumerate(nodes)}
    children = torch.tensor([[index.get((*node, b), 0) for b in range(n_branches)] for node in nodes], device=known.device)
    walk, n_agreed = _walk(draft, picked, children)
    next_logits = _next_drafts(trunk, objective, hidden, walk, n_agreed, n_known)
    return picked.gather(1, walk), n_agreed, next_logits


def _walk(
    draft: Int[Tensor, "B m b"], picked: Int[Tensor, "B nodes"], children: Int[Tensor, "nodes b"]
) -> tuple[Int[Tensor, "B n"], Int[Tensor, " B"]]:
    """Return the nodes of the branch that agrees longest with the model's picks, and the number of its tokens that agree."""
    rows = torch.arange(len(draft), device=draft.device)
    walk = draft.new_zeros(len(draft), draft.shape[1] + 1)  # begins at the root, node 0
    agrees: Bool[Tensor, " B"] = torch.ones_like(rows, dtype=torch.bool)
    n_agreed = torch.zeros_like(rows)
    for depth in range(draft.shape[1]):
        here = walk[:, depth]
        match = draft[:, depth] == picked[rows, here][:, None]  # all nodes of one depth have the same candidates as children
        agrees = agrees & match.any(1)
        walk[:, depth + 1] = children[here, match.int().argmax(1)]  # after a mismatch, the rest of the walk means nothing
        n_agreed += agrees
    return walk, n_agreed


def _next_drafts(
    trunk: Trunk, objective: Objective, hidden: Hidden, walk: Int[Tensor, "B n"], n_agreed: Int[Tensor, " B"], n_known: int
) -> Float[Tensor, "B h V"]:
    """Return the heads' logits for the tokens after the model's own token at the end of the agreed branch."""
    by_row: dict[int, Tensor] = {}
    for n in n_agreed.unique().tolist():  # rows with equally long sequences are read together
        rows = (n_agreed == n).nonzero()[:, 0]
        # The heads read a sequence: the known tokens and the agreed branch, without the branches that were not taken.
        past = torch.arange(n_known, device=walk.device).expand(len(rows), -1)
        read = torch.cat([past, walk[rows, 1 : n + 1] + n_known - 1], 1)
        logits = objective.draft_logits(trunk, Hidden(*(states[rows[:, None], read] for states in hidden if states is not None)))
        by_row |= dict(zip(rows.tolist(), logits[:, 1:], strict=True))  # the first of them is the token that was just picked
    return torch.stack([by_row[row] for row in range(len(walk))])


def _tree_inputs(nodes: list[Node], n_known: int, device: torch.device) -> dict[str, Tensor]:
    """Return positions and mask of a tree behind n_known tokens.

    A node has the position of its depth. It sees the known tokens, its ancestors and itself.
    """
    root = n_known - 1  # its input position
    place = {node: root + i for i, node in enumerate(nodes)}
    mask = torch.ones(root + len(nodes), root + len(nodes), dtype=torch.bool, device=device).tril()
    mask[n_known:, n_known:] = False
    for node in nodes[1:]:
        mask[place[node], [place[node[:depth]] for depth in range(1, len(node) + 1)]] = True
    positions = [*range(n_known), *(root + len(node) for node in nodes[1:])]
    return {"positions": torch.tensor(positions, device=device)[None], "mask": mask[None]}
