"""Sampling, identity and verification of path-star graphs, against networkx and brute force."""

import itertools
import math

import networkx as nx
import pytest
import torch
from scipy.stats import chisquare

from pitfalls.runs.counts import FIRST_HOP
from pitfalls.schemas import ConfigError
from pitfalls.seeding import generator
from pitfalls.tasks.batch import Batch
from pitfalls.tasks.path_star import Outcome, PathStar, _mix, random_arrangements

SIZES = [(2, 5, 50), (2, 3, 20), (5, 5, 50), (3, 3, 7), (2, 2, 3), (1, 4, 6), (1, 2, 2), (4, 2, 5), (2, 4, 10)]
"""Sizes (degree, path_length, n_values). Some have exactly as many values as nodes."""

P_VALUE = 1e-3
"""Smallest p-value that passes. The seeds are fixed, so a test always passes or never does."""


def sample(task: PathStar, n_graphs: int, seed: int = 0, targets_per_graph: int = 1) -> Batch:
    return task.sample(n_graphs, generator(seed, "data"), targets_per_graph=targets_per_graph)


def prompt_of(task: PathStar, edges: list[tuple[int, int]], start: int, goal: int) -> torch.Tensor:
    """A prompt [1,P] written by hand from the format's description."""
    bar, slash, equals = (task.vocabulary.id(symbol) for symbol in "|/=")
    tokens = [token for a, b in edges for token in (a, b, bar)]
    tokens[-1] = slash
    return torch.tensor([[*tokens, start, goal, equals]])


def assert_uniform(cells: torch.Tensor, n_cells: int) -> None:
    counts = cells.bincount(minlength=n_cells)
    assert len(counts) == n_cells
    assert chisquare(counts.numpy()).pvalue > P_VALUE, counts


# ------------------------------------------------------------------ sizes


@pytest.mark.parametrize(("d", "length", "n"), SIZES)
def test_every_sample_is_a_path_star_graph(d: int, length: int, n: int):
    """Guards against errors in the sampler's index arithmetic. networkx judges each graph."""
    task = PathStar(d, length, n)
    batch = sample(task, 60)
    assert batch.prompt.shape == (60, task.prompt_length) == (60, 3 * d * (length - 1) + 3)
    assert batch.target.shape == (60, task.target_length) == (60, length)
    assert task.sequence_length == torch.cat([batch.prompt, batch.target[:, :-1]], 1).shape[1]
    for (graph, start, goal), target in zip(task.to_networkx(batch.prompt), batch.target.tolist(), strict=True):
        assert graph.number_of_edges() == task.n_edges == d * (length - 1), "an edge occurs twice"
        assert graph.number_of_nodes() == task.n_nodes == 1 + d * (length - 1), "node values are not distinct"
        assert set(graph) <= set(range(n))
        assert nx.is_arborescence(graph)
        assert not list(nx.selfloop_edges(graph))
        assert graph.out_degree(start) == d
        assert all(graph.out_degree(node) <= 1 for node in graph if node != start)
        leaves = [node for node in graph if graph.out_degree(node) == 0]
        assert len(leaves) == d
        assert goal in leaves
        assert all(nx.shortest_path_length(graph, start, leaf) == length - 1 for leaf in leaves)
        assert nx.shortest_path(graph, start, goal) == target


@pytest.mark.parametrize(("d", "length", "n"), [(2, 5, 50), (1, 2, 2), (3, 3, 7)])
def test_tokens_of_a_prompt_stand_where_the_format_says(d: int, length: int, n: int):
    task = PathStar(d, length, n)
    batch = sample(task, 20)
    words = task.vocabulary.text(batch.prompt[0].tolist()).split()
    assert words[2 : 3 * task.n_edges : 3] == ["|"] * (task.n_edges - 1) + ["/"]
    assert words[-1] == "="
    assert (batch.prompt[:, -3] == batch.target[:, 0]).all()
    assert (batch.prompt[:, -2] == batch.target[:, -1]).all()
    assert torch.equal(task.start(batch.prompt), batch.target[:, 0])
    assert torch.equal(task.goal(batch.prompt), batch.target[:, -1])


def test_a_size_that_does_not_fit_names_the_values_it_needs():
    """Guards against defect 22 of the official code: it loops for ever."""
    with pytest.raises(ConfigError, match=r"n_values=10 is too small, it must be at least 21"):
        PathStar(5, 5, 10)
    with pytest.raises(ConfigError, match="at least 5"):
        PathStar(2, 3, 4)
    PathStar(2, 3, 5)
    with pytest.raises(ConfigError, match="degree=0: a star needs at least 1 arm"):
        PathStar(0, 3, 20)
    with pytest.raises(ConfigError, match="path_length=1: a path needs at least 2 nodes, the start and the goal"):
        PathStar(2, 1, 20)


@pytest.mark.parametrize("targets_per_graph", [0, 3])
def test_more_goals_than_arms_are_refused(targets_per_graph: int):
    with pytest.raises(ValueError, match=rf"targets_per_graph={targets_per_graph}.*1\.\.2"):
        sample(PathStar(2, 3, 20), 4, targets_per_graph=targets_per_graph)


# ------------------------------------------------------------------ distribution


@pytest.mark.parametrize("targets_per_graph", [1, 2])
def test_node_values_are_uniform_in_every_role(targets_per_graph: int):
    """Guards against a biased shuffle (off-by-one in Fisher-Yates): start, each node of the path, for each row of a graph."""
    task = PathStar(2, 3, 7)
    rows = sample(task, 14_000, targets_per_graph=targets_per_graph).target.view(-1, targets_per_graph, 3)
    for k, position in itertools.product(range(targets_per_graph), range(3)):
        assert_uniform(rows[:, k, position], task.n_values)


@pytest.mark.parametrize("targets_per_graph", [1, 2])
def test_pairs_of_node_values_are_uniform(targets_per_graph: int):
    """Uniform marginals do not exclude a shuffle that correlates nodes, which a model could exploit."""
    task = PathStar(2, 3, 5)
    target = sample(task, 10_000, targets_per_graph=targets_per_graph).target[::targets_per_graph]
    pair = target[:, 1] * 5 + target[:, 2]
    counts = pair.bincount(minlength=25).view(5, 5)
    assert counts.diagonal().sum() == 0
    assert chisquare(counts[~torch.eye(5, dtype=torch.bool)].numpy()).pvalue > P_VALUE


def canonical_edge_places(task: PathStar, batch: Batch) -> torch.Tensor:
    """Return the place of each edge in the list, [B,E]: first the edges of the goal's arm, start to leaf, then the other arm's.

    It is for d = 2 only, and written without the sampler's own arithmetic.
    """
    places = []
    for pairs, target in zip(task.edges(batch.prompt).tolist(), batch.target.tolist(), strict=True):
        child = {a: b for a, b in pairs if a != target[0]}
        other = [target[0], next(b for a, b in pairs if a == target[0] and b != target[1])]
        while other[-1] in child:
            other.append(child[other[-1]])
        canonical = [*itertools.pairwise(target), *itertools.pairwise(other)]
        places.append([pairs.index(list(edge)) for edge in canonical])
    return torch.tensor(places)


@pytest.mark.parametrize("targets_per_graph", [1, 2])
def test_the_edge_order_is_uniform(targets_per_graph: int):
    """Guards against an edge list whose order shows which arm holds the goal. Each of a graph's rows is tested alone."""
    task = PathStar(2, 3, 8)
    batch = sample(task, 4_800, targets_per_graph=targets_per_graph)
    rank = {order: i for i, order in enumerate(itertools.permutations(range(4)))}
    places = canonical_edge_places(task, batch)
    orders = torch.tensor([rank[tuple(row)] for row in places.tolist()]).view(-1, targets_per_graph)
    for k in range(targets_per_graph):
        assert_uniform(orders[:, k], math.factorial(4))
    for edge in range(4):
        assert_uniform(places[::targets_per_graph, edge], 4)


@pytest.mark.parametrize("d", [2, 5])
@pytest.mark.parametrize("targets_per_graph", [1, 2])
def test_the_goals_arm_is_uniform_by_order_of_appearance(d: int, targets_per_graph: int):
    """Guards against a shortcut: the arm that is listed first must be right with probability 1/d."""
    task = PathStar(d, 3, 20)
    batch = sample(task, 5_000, targets_per_graph=targets_per_graph)
    edge = task.edges(batch.prompt)
    from_start = edge[:, :, 0] == task.start(batch.prompt)[:, None]
    hops = edge[:, :, 1][from_start].view(-1, d)
    arm = (hops == batch.target[:, FIRST_HOP, None]).long().argmax(1).view(-1, targets_per_graph)
    for k in range(targets_per_graph):
        assert_uniform(arm[:, k], d)
    if targets_per_graph == 2:
        assert_uniform(arm[:, 0] * (d - 1) + arm[:, 1] - (arm[:, 1] > arm[:, 0]).long(), d * (d - 1))


def test_rows_of_one_graph_share_the_edge_list_and_differ_in_the_goal():
    task = PathStar(3, 4, 20)
    batch = sample(task, 50, targets_per_graph=3)
    prompt, target = batch.prompt.view(50, 3, -1), batch.target.view(50, 3, -1)
    n_edge_tokens = 3 * task.n_edges
    assert (prompt[:, :, :n_edge_tokens] == prompt[:, :1, :n_edge_tokens]).all()
    assert (target[:, :, 0] == target[:, :1, 0]).all()
    for position in (1, 2, 3):
        assert all(len(set(row)) == 3 for row in target[:, :, position].tolist())
    assert (task.verify(batch.prompt, batch.target) == Outcome.RIGHT_ARM).all()


def test_the_seed_alone_decides_the_graphs():
    """Guards against defect 9 of the official code: no seed, and two global generators in one function."""
    task = PathStar(2, 5, 50)
    first = sample(task, 32, seed=3)
    torch.rand(7)
    again = sample(task, 32, seed=3)
    assert torch.equal(first.prompt, again.prompt)
    assert torch.equal(first.target, again.target)
    assert not torch.equal(first.prompt, sample(task, 32, seed=4).prompt)


@pytest.mark.parametrize(("n_items", "n_picked"), [(6, 6), (9, 4), (1, 1)])
def test_random_arrangements_pick_distinct_items(n_items: int, n_picked: int):
    rows = random_arrangements(200, n_items, n_picked, generator(0, "data"))
    assert rows.shape == (200, n_picked)
    assert all(len(set(row)) == n_picked for row in rows.tolist())
    assert rows.min() >= 0
    assert rows.max() < n_items
    if n_items == n_picked:
        assert torch.equal(rows.sort(1).values, torch.arange(n_items).expand(200, -1))


@pytest.mark.parametrize(("n_items", "n_picked"), [(50, 9), (8, 8), (100, 39), (1, 1)])
def test_random_arrangements_are_a_fisher_yates_shuffle_of_the_same_draws(n_items: int, n_picked: int):
    """Guards against a faster sampler that draws other graphs from the same seed: the slow reference is a list in Python."""
    fast = random_arrangements(30, n_items, n_picked, generator(2, "data"))
    draws = torch.rand(n_picked, 30, generator=generator(2, "data"), dtype=torch.float64).t().tolist()
    for row, uniform in zip(fast.tolist(), draws, strict=True):
        items = list(range(n_items))
        for i, u in enumerate(uniform):
            j = i + int(u * (n_items - i))
            items[i], items[j] = items[j], items[i]
        assert row == items[:n_picked]


def test_random_arrangements_are_uniform_over_all_arrangements():
    rows = random_arrangements(12_000, 4, 3, generator(1, "data"))
    rank = {order: i for i, order in enumerate(itertools.permutations(range(4), 3))}
    assert_uniform(torch.tensor([rank[tuple(row)] for row in rows.tolist()]), 24)


# ------------------------------------------------------------------ verification

TASK = PathStar(2, 4, 10)
EDGES = [(7, 1), (0, 4), (1, 9), (7, 3), (3, 0), (9, 5)]
"""Edges of the arms 7 1 9 5 and 7 3 0 4."""
PROMPT = prompt_of(TASK, EDGES, start=7, goal=4)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ([7, 3, 0, 4], Outcome.RIGHT_ARM),
        ([7, 1, 9, 5], Outcome.WRONG_ARM),
        ([1, 3, 0, 4], Outcome.BROKEN_WALK),  # right but for the start
        ([3, 0, 4, 4], Outcome.BROKEN_WALK),  # a legal stretch that begins one node late
        ([7, 7, 3, 0], Outcome.BROKEN_WALK),  # repeated node
        ([7, 1, 9, 9], Outcome.BROKEN_WALK),  # stops before the leaf
        ([7, 1, 0, 4], Outcome.BROKEN_WALK),  # the goal by a jump between arms
        ([7, 1, 9, 4], Outcome.WRONG_ARM_THEN_GOAL),
        ([1, 1, 9, 4], Outcome.BROKEN_WALK),  # the same, but for the start
        ([7, 1, 9, 0], Outcome.BROKEN_WALK),  # a jump at the end, but not to the goal
        ([7, 4, 4, 4], Outcome.BROKEN_WALK),  # goal babbling
        ([4, 0, 3, 7], Outcome.BROKEN_WALK),  # backwards
        ([7, 3, 0, 2], Outcome.BROKEN_WALK),  # a value that is not in the graph
        ([7, 3, 0, 10], Outcome.BROKEN_WALK),  # "|"
        ([12, 12, 12, 12], Outcome.BROKEN_WALK),  # "=" only
        ([7, 13, 13, 13], Outcome.BROKEN_WALK),  # dummies
    ],
)
def test_outcomes_of_hand_written_answers(answer: list[int], outcome: Outcome):
    assert TASK.verify(PROMPT, torch.tensor([answer])).tolist() == [outcome]


def test_the_goal_decides_between_right_and_wrong_arm():
    other = prompt_of(TASK, EDGES, start=7, goal=5)
    answer = torch.tensor([[7, 1, 9, 5]])
    assert TASK.verify(other, answer).tolist() == [Outcome.RIGHT_ARM]
    assert TASK.verify(PROMPT, answer).tolist() == [Outcome.WRONG_ARM]


def slow_outcome(graph: nx.DiGraph, start: int, goal: int, answer: list[int]) -> Outcome:
    """The reference of `PathStar.verify`, by graph search."""
    if answer == nx.shortest_path(graph, start, goal):
        return Outcome.RIGHT_ARM
    leaves = [node for node in graph if graph.out_degree(node) == 0]
    if any(answer == nx.shortest_path(graph, start, leaf) for leaf in leaves):
        return Outcome.WRONG_ARM
    arms = [nx.shortest_path(graph, start, leaf) for leaf in leaves if leaf != goal]
    if any(answer == [*arm[:-1], goal] for arm in arms):
        return Outcome.WRONG_ARM_THEN_GOAL
    return Outcome.BROKEN_WALK


@pytest.mark.parametrize(("d", "length", "n"), [(2, 4, 10), (3, 3, 7), (1, 3, 5), (2, 2, 3)])
def test_verify_equals_graph_search_on_random_answers(d: int, length: int, n: int):
    """Guards against errors of the vectorised lookup, for example two edges that share a code."""
    task, draws = PathStar(d, length, n), generator(5, "probe")
    batch = sample(task, 400, targets_per_graph=d)
    swapped = batch.target.roll(1, 0)  # the other goals of the same graph, mostly
    noise = torch.randint(0, task.vocabulary.size, batch.target.shape, generator=draws)
    mutated = torch.where(torch.rand(batch.target.shape, generator=draws) < 0.25, noise, batch.target)
    seen = set()
    jumps = torch.cat([swapped[:, :-1], batch.target[:, -1:]], 1)
    for answers in (batch.target, swapped, noise, mutated, jumps):
        slow = [slow_outcome(*row, answer) for row, answer in zip(task.to_networkx(batch.prompt), answers.tolist(), strict=True)]
        assert task.verify(batch.prompt, answers).tolist() == slow
        seen |= set(slow)
    impossible = {Outcome.WRONG_ARM} if d == 1 else set()
    if d == 1 or length == 2:
        impossible |= {Outcome.WRONG_ARM_THEN_GOAL}
    assert seen == set(Outcome) - impossible


# ------------------------------------------------------------------ identity


def test_the_key_ignores_edge_order_and_goal_and_nothing_else():
    """Guards against train/test overlap by way of a reshuffled edge list or another goal (defect 10 of the official code)."""
    key = TASK.graph_keys(PROMPT)
    for order in itertools.islice(itertools.permutations(EDGES), 0, None, 37):
        assert torch.equal(TASK.graph_keys(prompt_of(TASK, list(order), 7, 4)), key)
    assert torch.equal(TASK.graph_keys(prompt_of(TASK, EDGES, 7, 5)), key)
    flipped = [*EDGES[:-1], (5, 9)]
    assert not torch.equal(TASK.graph_keys(prompt_of(TASK, flipped, 7, 4)), key)
    renamed = [(a, 2 if b == 5 else b) for a, b in EDGES]
    assert not torch.equal(TASK.graph_keys(prompt_of(TASK, renamed, 7, 4)), key)


def all_graphs(task: PathStar) -> dict[frozenset[tuple[int, int]], torch.Tensor]:
    """Return a prompt for every graph of a tiny task, by edge set, found by brute force."""
    graphs = {}
    for start, *rest in itertools.permutations(range(task.n_values), task.n_nodes):
        size = task.path_length - 1
        arms = [[start, *rest[i * size : (i + 1) * size]] for i in range(task.degree)]
        edges = [edge for arm in arms for edge in itertools.pairwise(arm)]
        graphs[frozenset(edges)] = prompt_of(task, edges, start, arms[0][-1])
    return graphs


@pytest.mark.parametrize(("d", "length", "n"), [(2, 2, 6), (2, 3, 5), (2, 3, 6), (3, 2, 5), (1, 4, 5), (1, 2, 2)])
def test_distinct_graphs_are_counted_and_keyed_exactly(d: int, length: int, n: int):
    """Guards against errors in the split's arithmetic (a wrong d! or N!/(N-n)!), and against keys that collide."""
    task = PathStar(d, length, n)
    graphs = all_graphs(task)
    assert task.n_distinct_graphs == len(graphs)
    assert task.graph_keys(torch.cat(list(graphs.values()))).unique().numel() == len(graphs)


def test_keys_of_many_sampled_graphs_do_not_collide():
    task = PathStar(2, 5, 50)
    prompt = sample(task, 20_000).prompt
    graphs = {frozenset(map(tuple, row)) for row in task.edges(prompt).tolist()}
    assert task.graph_keys(prompt).unique().numel() == len(graphs)


def test_keys_are_scrambled_by_splitmix64():
    """Guards against a mistyped constant or an arithmetic shift, which make collisions likely: the first output is published."""
    seed_0 = torch.tensor([0x9E3779B97F4A7C15 - 2**64])
    assert _mix(seed_0).item() == 0xE220A8397B1DCDAF - 2**64


def test_rows_of_a_graph_say_what_they_share():
    task = PathStar(3, 4, 20)
    batch = sample(task, 5, targets_per_graph=3)
    assert batch.shared == (3, 3 * task.n_edges)
    edges = batch.prompt[:, : batch.shared.tokens].view(5, 3, -1)
    assert (edges == edges[:, :1]).all()
    assert not (batch.prompt.view(5, 3, -1) == batch.prompt[::3, None]).all()
    assert sample(task, 5).shared is None


@pytest.mark.parametrize(("start", "stop", "whole"), [(0, 15, True), (3, 9, True), (1, 4, False), (0, 4, False)])
def test_a_cut_through_a_graph_shares_nothing(start: int, stop: int, whole: bool):
    batch = sample(PathStar(3, 4, 20), 5, targets_per_graph=3)
    assert (batch.rows(start, stop).shared is not None) is whole
    assert batch.to("cpu").shared == batch.shared
