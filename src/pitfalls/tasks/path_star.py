"""Path-star graphs G(d, l) on N node values: sampling, verification, identity.

d arms leave a start node. Each arm has l nodes *counting the start*. All 1 + d(l-1) nodes have distinct values from
0..N-1 (Bachmann & Nagarajan 2024, section 4.1). As tokens:

    prompt   a b | c d | ... y z / start goal =      P = 3 d (l-1) + 3 tokens, edges (parent, child) in random order
    target   start v1 ... goal                       L = l tokens

Everything is vectorised over rows and runs on the generator's device. The slow, readable reference uses networkx: it is in
the tests and in `PathStar.to_networkx`.

Letters in shapes: B rows, G graphs, E = d(l-1) edges, P tokens of the prompt, L tokens of the target.
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
    """Kind of an answer, judged by the graph alone. Token accuracy does not distinguish these kinds."""

    RIGHT_ARM = 0
    """The path from the start to the goal."""
    WRONG_ARM = 1
    """A legal walk from the start to another leaf. A cheat that reads each token off the one before it ends here."""
    WRONG_ARM_THEN_GOAL = 2
    """A legal walk along another arm with the goal as its last token. A cheat that copies the goal from the prompt ends here."""
    BROKEN_WALK = 3
    """Anything else. The edge lookup itself is not learned."""


@dataclass(frozen=True)
class PathStar:
    """The task G(degree, path_length) on n_values node values.

    Raises:
        ConfigError: degree < 1, path_length < 2, or fewer node values than nodes.
    """

    degree: int
    """Number of arms d."""
    path_length: int
    """Number of nodes l of an arm, the start included."""
    n_values: int
    """Number of node values N to draw from."""

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
        """Number of edges of a graph: E = d(l-1)."""
        return self.degree * (self.path_length - 1)

    @property
    def n_nodes(self) -> int:
        """Number of nodes of a graph: 1 + d(l-1)."""
        return 1 + self.n_edges

    @property
    def prompt_length(self) -> int:
        """Number of tokens of the prompt: P = 3d(l-1) + 3."""
        return 3 * self.n_edges + 3

    @property
    def target_length(self) -> int:
        """Number of tokens of the target: L = l."""
        return self.path_length

    @property
    def sequence_length(self) -> int:
        """Number of tokens that a teacher-forced pass reads: P + L - 1. The last target token is never an input."""
        return self.prompt_length + self.target_length - 1

    @property
    def n_positions(self) -> int:
        """Number of positions of a trunk: P + 3L + 8. It is enough for every objective, so all start from the same weights."""
        return self.prompt_length + 3 * self.target_length + 8

    @property
    def n_distinct_graphs(self) -> int:
        """Number of distinct edge sets: N!/(N-n)! assignments of values to n nodes, divided by the d! orders of the arms."""
        return math.perm(self.n_values, self.n_nodes) // math.factorial(self.degree)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Token ids of the task."""
        return Vocabulary(self.n_values)

    def __str__(self) -> str:
        return f"G({self.degree},{self.path_length})"

    # ------------------------------------------------------------------ sampling

    def sample(self, n_graphs: int, generator: torch.Generator, *, targets_per_graph: int = 1) -> Batch:
        """Draw graphs. Node values, arms, edge order and the goal's arm are all uniform.

        Args:
            n_graphs: number of graphs to draw. Memory is proportional to it.
            generator: the only source of randomness. Its device is the device of the result.
            targets_per_graph: rows per graph, at most d. They share the edge list and differ in the goal.

        Returns:
            A batch of n_graphs * targets_per_graph rows. The rows of one graph are neighbours.

        Raises:
            ValueError: targets_per_graph is not in 1..d.
        """
        if not 1 <= targets_per_graph <= self.degree:
            raise ValueError(f"targets_per_graph={targets_per_graph}: {self} has 1..{self.degree} goals")
        nodes = random_arrangements(n_graphs, self.n_values, self.n_nodes, generator)  # start, arm 0, arm 1, ...
        order = random_arrangements(n_graphs, self.n_edges, self.n_edges, generator)
        # The goals are always the leaves of the first arms. That is uniform too: the arms have random values, and the edges
        # are shuffled, so the edge list does not show which arm was drawn first.
        arms = nodes[:, 1:].view(n_graphs, self.degree, self.path_length - 1)
        edges = self._edge_tokens(nodes[:, :1], arms, order)
        return self._rows(edges, nodes[:, :1], arms[:, :targets_per_graph])

    def _edge_tokens(self, start: Tensor, arms: Tensor, order: Tensor) -> Int[Tensor, "G T"]:
        """Return the tokens of the edge lists, [G,3E], in a given order.

        Args:
            start: the start nodes, [G,1].
            arms: the other nodes of each arm, [G,d,l-1].
            order: index of the edge at each place of the list, [G,E].
        """
        n_graphs = start.shape[0]
        # Each node of an arm is the child of one edge; its parent is the node before it, or the start. So ``arms`` and
        # ``parent``, both flattened to [G,E], are the children and the parents of all edges in the same unshuffled order.
        parent = torch.cat([start[:, None].expand(-1, self.degree, 1), arms[:, :, :-1]], 2).view(n_graphs, -1)
        tokens = parent.new_full((n_graphs, self.n_edges, 3), self.vocabulary.id("|"))
        torch.gather(parent, 1, order, out=tokens[:, :, 0])
        torch.gather(arms.reshape(n_graphs, -1), 1, order, out=tokens[:, :, 1])
        tokens[:, -1, 2] = self.vocabulary.id("/")
        return tokens.view(n_graphs, -1)

    def _rows(self, edges: Tensor, start: Tensor, arms: Tensor) -> Batch:
        """Return one row for each arm that holds a goal.

        Args:
            edges: tokens of the edge lists, [G,3E].
            start: the start nodes, [G,1].
            arms: the other nodes of the k arms that hold goals, [G,k,l-1].
        """
        k = arms.shape[1]
        if k > 1:
            edges, start = edges.repeat_interleave(k, 0), start.repeat_interleave(k, 0)
        arm = arms.reshape(-1, self.path_length - 1)
        equals = torch.full_like(start, self.vocabulary.id("="))
        shared = Shared(rows=k, tokens=edges.shape[1]) if k > 1 else None
        return Batch(torch.cat([edges, start, arm[:, -1:], equals], 1), torch.cat([start, arm], 1), shared)

    # ------------------------------------------------------------------ reading prompts

    def edges(self, prompt: Int[Tensor, "B P"]) -> Int[Tensor, "B E 2"]:
        """Return the (parent, child) pairs of each prompt, in the order of the prompt."""
        return prompt[:, : 3 * self.n_edges].view(-1, self.n_edges, 3)[:, :, :2]

    def start(self, prompt: Int[Tensor, "B P"]) -> Int[Tensor, " B"]:
        """Return the start node of each prompt."""
        return prompt[:, -3]

    def goal(self, prompt: Int[Tensor, "B P"]) -> Int[Tensor, " B"]:
        """Return the goal node of each prompt."""
        return prompt[:, -2]

    def graph_keys(self, prompt: Int[Tensor, "B P"]) -> Int[Tensor, " B"]:
        """Return a 64-bit key of each edge *set*. The key does not depend on the order of the edges or on the goal.

        The key is the sum, modulo 2^64, of one fixed pseudo-random number per edge. Equal graphs always have the same key.
        Two different graphs have the same key with a probability of about 2^-64.
        """
        edge = self.edges(prompt)
        return _mix(edge[..., 0] * self.n_values + edge[..., 1] + 1).sum(1)

    def verify(self, prompt: Int[Tensor, "B P"], answer: Int[Tensor, "B L"]) -> Int[Tensor, " B"]:
        """Return the `Outcome` of each answer, judged by the edges of its prompt alone.

        A walk is legal if it begins at the start and every step is an edge. A walk of l-1 legal steps ends at a leaf.
        """
        edge, answer = self.edges(prompt), answer.to(prompt.device)
        answer = answer.clamp(max=self.vocabulary.size - 1)  # a pretrained model may answer with tokens that are not of the task
        # A pair of tokens becomes one number, parent * size + child. Then a step of the answer is an edge of the graph if its
        # number is among the numbers of the edges.
        code = edge[..., 0] * self.vocabulary.size + edge[..., 1]
        step = answer[:, :-1] * self.vocabulary.size + answer[:, 1:]
        is_edge: Bool[Tensor, "B l"] = (step[:, :, None] == code[:, None, :]).any(2)  # [row, step], L-1 steps
        legal_before_last = is_edge[:, :-1].all(1) & (answer[:, 0] == self.start(prompt))
        at_goal = answer[:, -1] == self.goal(prompt)
        # Two questions decide: is the last step an edge, and does the answer end at the goal?
        legal = torch.where(at_goal, Outcome.RIGHT_ARM, Outcome.WRONG_ARM)
        broken = torch.where(legal_before_last & at_goal, Outcome.WRONG_ARM_THEN_GOAL, Outcome.BROKEN_WALK)
        return torch.where(legal_before_last & is_edge[:, -1], legal, broken)

    def to_networkx(self, prompt: Int[Tensor, "B P"]) -> "Iterator[tuple[networkx.DiGraph, int, int]]":
        """Yield each prompt as (directed graph, start, goal)."""
        import networkx

        for pairs, start, goal in zip(
            self.edges(prompt).tolist(), self.start(prompt).tolist(), self.goal(prompt).tolist(), strict=True
        ):
            yield networkx.DiGraph(pairs), start, goal


def random_arrangements(n_rows: int, n_items: int, n_picked: int, generator: torch.Generator) -> Int[Tensor, "n_rows n_picked"]:
    """Return in each row n_picked distinct items of 0..n_items-1 in uniformly random order (partial Fisher-Yates shuffle).

    A double has 53 random bits. So the bias of scaling it to at most n_items outcomes is below n_items * 2^-53.
    """
    device = generator.device
    # One column per row of the result: then each round reads and writes whole rows of memory.
    pool = torch.arange(n_items, device=device)[:, None].repeat(1, n_rows)
    # picks[i] is uniform in i .. n_items-1. All draws are made at once.
    uniform = torch.rand(n_picked, n_rows, generator=generator, device=device, dtype=torch.float64)
    left = n_items - torch.arange(n_picked, device=device)[:, None]
    picks = (uniform * left).long().clamp_(max=left - 1) + (n_items - left)
    # Round i takes the item at place picks[i], and the item at place i moves there: the items left are behind place i. All views
    # are made at once, because a small batch costs as much as the number of calls of torch.
    picked = torch.empty_like(picks)
    for pick, item, place in zip(picks.split(1), picked.split(1), pool.split(1), strict=False):
        torch.gather(pool, 0, pick, out=item)
        pool.scatter_(0, pick, place.clone())
    return picked.t().contiguous()


def _mix(x: Tensor) -> Tensor:
    """Scramble int64 numbers by a fixed bijection, the finaliser of splitmix64 (Steele et al. 2014).

    Each mask makes the arithmetic shift of a signed number a logical one.
    """
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return x ^ ((x >> 31) & 0x1FFFFFFFF)
