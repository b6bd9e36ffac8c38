"""The tokens that a path-star model writes after the end of the path, and the entropy of each prediction.

No path-star model has learned to stop, because nothing follows the last token in training. So decoding can continue.
"""

from collections import Counter
from statistics import fmean
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pitfalls.language.estimates import mean, share
from pitfalls.language.repetition import final_loop, repeated
from pitfalls.models.trunk import Trunk
from pitfalls.objectives.base import Objective
from pitfalls.objectives.next_token import NextToken
from pitfalls.runs.counts import FIRST_HOP
from pitfalls.schemas import ConfigError
from pitfalls.tasks.batch import Batch

KINDS = ("the same node", "start", "its own path", "another arm", "not in the graph", "a symbol")
"""Kinds of the first token after a path. The first kind that fits is counted."""


def n_more(length: int) -> int:
    """Return the number of tokens to write after a path of ``length`` tokens.

    Together with prompt and path they fill the P + 3L + 8 positions that every trunk has.
    """
    return 2 * length + 8


def measure_past_goal(trunk: Trunk, objective: Objective, graphs: Batch, n_values: int) -> dict[str, Any]:
    """Return measures of the tokens that greedy decoding writes after the end of the path, as a dict for JSON.

    Args:
        trunk: the trunk, in eval mode.
        objective: an objective that answers by next tokens. A reversed answer is read from the goal, as it was written.
        graphs: B rows in canonical order.
        n_values: number of node values N. Larger tokens are symbols.

    Raises:
        ConfigError: the objective does not answer token by token from its model's logits, or writes more than the path.
    """
    if not isinstance(objective, NextToken) or type(objective).step_logits is not NextToken.step_logits:
        raise ConfigError(f"{type(objective).__name__} does not write token by token; take a run of next_token or reversed")
    length = graphs.target.shape[1]
    if objective.written_length(length) != length:
        raise ConfigError(f"{type(objective).__name__} writes more tokens than the path; take a run of next_token or reversed")
    written, entropy = write_on(trunk, objective, graphs.prompt, length + n_more(length))
    rows, extra = written.tolist(), written[:, length:].tolist()
    loops = [final_loop(text) for text in extra]
    found = Counter(_kind(row, prompt, length, n_values) for row, prompt in zip(rows, graphs.prompt.tolist(), strict=True))
    pairs = [(e[length + loop.formed :], loop) for e, loop in zip(entropy, loops, strict=True) if loop]
    right = (objective.unview(written[:, :length]) == graphs.target).all(1)
    return {
        "tokens": n_more(length),
        "graphs": len(rows),
        "exact_match": share(right.tolist()),
        "first_hop_place": objective.places(length)[FIRST_HOP],
        "entropy": [mean(column.tolist()) for column in entropy.unbind(1)],
        "next": {kind: found[kind] / len(rows) for kind in KINDS},
        "loops": share([loop is not None for loop in loops]),
        "periods": sorted(Counter(loop.period for loop in loops if loop).items()),
        "entropy_in_loop": mean(e.mean().item() for e, _ in pairs if len(e)),
        "rep_2": fmean(repeated(text, 2) for text in extra),
    }


@torch.no_grad()
def write_on(
    trunk: Trunk, objective: Objective, prompt: Int[Tensor, "B P"], n: int
) -> tuple[Int[Tensor, "B n"], Float[Tensor, "B n"]]:
    """Return n greedy tokens in the order of writing, and the entropy of each prediction in nats."""
    cache, tokens = trunk.new_cache(prompt.shape[1] + n - 1), prompt
    written, entropies = [], []
    for _ in range(n):
        log_p = objective.step_logits(trunk, tokens, cache).float().log_softmax(-1)
        entropies.append(-(log_p.exp() * log_p).sum(-1))
        written.append(log_p.argmax(-1))
        tokens = written[-1][:, None]
    return torch.stack(written, 1), torch.stack(entropies, 1)


def _kind(row: list[int], prompt: list[int], length: int, n_values: int) -> str:
    """Return the kind of the first token after the path, one of `KINDS`."""
    token, last, start = row[length], row[length - 1], prompt[-3]
    nodes = {value for value in prompt if value < n_values}
    tests = (token == last, token == start, token in row[:length], token in nodes, token < n_values, True)
    return next(kind for kind, holds in zip(KINDS, tests, strict=True) if holds)
