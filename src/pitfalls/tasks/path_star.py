"""Path-star graphs G(d, l) on N node values: sampling, verification, identity.

d arms leave a start node; each arm has l nodes *counting the start*; all 1 + d(l-1) nodes carry distinct values drawn
from 0..N-1 (Bachmann & Nagarajan 2024, section 4.1). As tokens:

    prompt   a b | c d | ... y z / start goal =      P = 3 d (l-1) + 3 tokens, edges (parent, child) in random order
    target   start v1 ... goal                       L = l tokens

Everything is vectorised over rows and runs on the generator's device; the slow, readable reference (networkx) lives in
the tests and in `to_networkx`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from pitfalls.schemas import ConfigError
from pitfalls.tasks.batch import Batch, Shared
from pitfalls.tasks.vocabulary import Vocabulary

if TYPE_CHECKING:
    import networkx


class Outcome(IntEnum):
    """What an answer is, whatever the target says token by token."""

    RIGHT_ARM = 0
    """The path from the start to the goal."""
    WRONG_ARM = 1
    """A legal walk from the start to another leaf: the cheat that reads every token off the one before it."""
    WRONG_ARM_THEN_GOAL = 2
    """A legal walk along another arm, but for its last token: the cheat that copies the goal from the prompt."""
    BROKEN_WALK = 3
    """Anything else: the edge lookup itself is not learned."""


@dataclass(frozen=True)
class PathStar:
    """The task G(degree, path_length) on n_values node values.

    Raises:
        ConfigError: degree < 1, path_length < 2, or fewer node values than nodes.
    """

    degree: int
    path_length: int
    n_values: int

    def __post_init__(self) -> None:
        if self.degree < 1:
            raise ConfigError(f"degree={self.degree}: a star needs at least 1 arm")
        if self.path_length < 2:
            raise ConfigError(f"path_length={self.path_length}: a path needs at least 2 nodes, the start and the goal")
        if self.n_nodes > self.n_values:
            raise ConfigError(
                f"G({self.degree},{self.path_length}) has {self.n_nodes} nodes with distinct values: "
                f"n_values={self.n_values} is too small, it must be at least {self.n_nodes}"
            )

    @property
    def n_edges(self) -> int:
        """Edges of one graph, d(l-1)."""
        return self.degree * (self.path_length - 1)

    @property
    def n_nodes(self) -> int:
        """Nodes of one graph, 1 + d(l-1)."""
        return 1 + self.n_edges

    @property
    def prompt_length(self) -> int:
        """Tokens P of the prompt, 3d(l-1) + 3."""
        return 3 * self.n_edges + 3

    @property
    def target_length(self) -> int:
        """Tokens L of the target, l."""
        return self.path_length

    @property
    def n_positions(self) -> int:
        """Positions that a trunk needs whatever the objective, P + 3L + 8: the same initial weights for all of them."""
        return self.prompt_length + 3 * self.target_length + 8

    @property
    def n_distinct_graphs(self) -> int:
        """How many edge sets exist: N!/(N-n)! value assignments, each counted once per order of the d arms."""
        return math.perm(self.n_values, self.n_nodes) // math.factorial(self.degree)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The token ids."""
        return Vocabulary(self.n_values)

    def __str__(self) -> str:
        return f"G({self.degree},{self.path_length})"

    # ------------------------------------------------------------------ sampling

    def sample(self, n_graphs: int, generator: torch.Generator, *, targets_per_graph: int = 1) -> Batch:
        """Draw graphs: node values, arms, edge order and the goal's arm are all uniform.

        Args:
            n_graphs: graphs to draw; memory is proportional to it.
            generator: the only source of randomness; its device is the device of the result.
            targets_per_graph: rows per graph, which share the edge list and differ in the goal (at most d).

        Returns:
            A batch of n_graphs * targets_per_graph rows, the rows of one graph side by side.

        Raises:
            ValueError: targets_per_graph is not in 1..d.
        """
        if not 1 <= targets_per_graph <= self.degree:
            raise ValueError(f"targets_per_graph={targets_per_graph}: {self} has 1..{self.degree} goals")
        nodes = random_arrangements(n_graphs, self.n_values, self.n_nodes, generator)
        order = random_arrangements(n_graphs, self.n_edges, self.n_edges, generator)
        # the first arms hold the goals: arms carry exchangeable values and edges are shuffled, so every arm is as likely
        arms = nodes[:, 1:].view(n_graphs, self.degree, self.path_length - 1)
        edges = self._edge_tokens(nodes[:, :1], arms, order)
        return self._rows(edges, nodes[:, :1], arms[:, :targets_per_graph])

    def _edge_tokens(self, start: Tensor, arms: Tensor, order: Tensor) -> Int[Tensor, "G T"]:
        """The edge list as tokens, in the given order: start [G,1], arms [G,d,l-1], order [G,E]."""
        n_graphs = start.shape[0]
        parent = torch.cat([start[:, None].expand(-1, self.degree, 1), arms[:, :, :-1]], 2).view(n_graphs, -1)
        tokens = parent.new_full((n_graphs, self.n_edges, 3), self.vocabulary.id("|"))
        torch.gather(parent, 1, order, out=tokens[:, :, 0])
        torch.gather(arms.reshape(n_graphs, -1), 1, order, out=tokens[:, :, 1])
        tokens[:, -1, 2] = self.vocabulary.id("/")
        return tokens.view(n_graphs, -1)

    def _rows(self, edges: Tensor, start: Tensor, arms: Tensor) -> Batch:
        """One row per goal arm: edges [G,3E], start [G,1], arms [G,k,l-1]."""
        k = arms.shape[1]
        edges, start = edges.repeat_interleave(k, 0), start.repeat_interleave(k, 0)
        arm = arms.reshape(-1, self.path_length - 1)
        equals = torch.full_like(start, self.vocabulary.id("="))
        shared = Shared(rows=k, tokens=edges.shape[1]) if k > 1 else None
        return Batch(torch.cat([edges, start, arm[:, -1:], equals], 1), torch.cat([start, arm], 1), shared)

    # ------------------------------------------------------------------ reading prompts

    def edges(self, prompt: Int[Tensor, "B P"]) -> Int[Tensor, "B E 2"]:
        """The (parent, child) pairs of each prompt, in prompt order."""
        return prompt[:, : 3 * self.n_edges].view(-1, self.n_edges, 3)[:, :, :2]

    def start(self, prompt: Int[Tensor, "B P"]) -> Int[Tensor, " B"]:
        """The start node of each prompt."""
        return prompt[:, -3]

    def goal(self, prompt: Int[Tensor, "B P"]) -> Int[Tensor, " B"]:
        """The goal node of each prompt."""
        return prompt[:, -2]

    def graph_keys(self, prompt: Int[Tensor, "B P"]) -> Int[Tensor, " B"]:
        """A 64-bit key of the edge *set*: equal for two prompts that differ in edge order or goal only.

        The sum, modulo 2^64, of a fixed pseudo-random number per edge. Two different graphs share a key with
        probability about 2^-64; equal graphs always do.
        """
        edge = self.edges(prompt)
        return _mix(edge[..., 0] * self.n_values + edge[..., 1] + 1).sum(1)

    def verify(self, prompt: Int[Tensor, "B P"], answer: Int[Tensor, "B L"]) -> Int[Tensor, " B"]:
        """The `Outcome` of each answer, judged by the prompt's edges alone.

        A walk is legal if it begins at the start and every step is an edge; l-1 legal steps end at a leaf.
        """
        edge, answer = self.edges(prompt), answer.to(prompt.device)
        answer = answer.clamp(max=self.vocabulary.size - 1)  # a pretrained model may answer with what is not of the task
        code = edge[..., 0] * self.vocabulary.size + edge[..., 1]
        step = answer[:, :-1] * self.vocabulary.size + answer[:, 1:]
        is_edge: Bool[Tensor, "B l"] = (step[:, :, None] == code[:, None, :]).any(2)
        legal_before_last = is_edge[:, :-1].all(1) & (answer[:, 0] == self.start(prompt))
        at_goal = answer[:, -1] == self.goal(prompt)
        legal = torch.where(at_goal, Outcome.RIGHT_ARM, Outcome.WRONG_ARM)
        broken = torch.where(legal_before_last & at_goal, Outcome.WRONG_ARM_THEN_GOAL, Outcome.BROKEN_WALK)
        return torch.where(legal_before_last & is_edge[:, -1], legal, broken)

    def to_networkx(self, prompt: Int[Tensor, "B P"]) -> "Iterator[tuple[networkx.DiGraph, int, int]]":
        """Each prompt as (directed graph, start, goal)."""
        import networkx

        for pairs, start, goal in zip(
            self.edges(prompt).tolist(), self.start(prompt).tolist(), self.goal(prompt).tolist(), strict=True
        ):
            yield networkx.DiGraph(pairs), start, goal


def random_arrangements(n_rows: int, n_items: int, n_picked: int, generator: torch.Generator) -> Int[Tensor, "n_rows n_picked"]:
    """In each row, n_picked distinct items of 0..n_items-1 in uniformly random order (partial Fisher-Yates).

    Works on columns (items x rows), so each of the n_picked rounds is a handful of contiguous passes. A double has 53
    random bits, so the bias of scaling it to at most n_items outcomes is below n_items * 2^-53.
    """
    device = generator.device
    pool = torch.arange(n_items, device=device)[:, None].repeat(1, n_rows)
    uniform = torch.rand(n_picked, n_rows, generator=generator, device=device, dtype=torch.float64)
    left = n_items - torch.arange(n_picked, device=device)[:, None]
    picks = (uniform * left).long().clamp_(max=left - 1) + (n_items - left)
    for i in range(n_picked):
        picked = pool.gather(0, picks[i : i + 1])
        pool.scatter_(0, picks[i : i + 1], pool[i : i + 1].clone())
        pool[i] = picked[0]
    return pool[:n_picked].t().contiguous()


def _mix(x: Tensor) -> Tensor:
    """A fixed bijective scrambling of int64 (the finaliser of splitmix64, Steele et al. 2014)."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return x ^ ((x >> 31) & 0x1FFFFFFFF)
