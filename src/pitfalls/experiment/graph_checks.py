"""Checks of path-star graphs that were typed by hand. Each mistake is one line that names the edge or the node."""

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex

from pitfalls.schemas import ConfigError

if TYPE_CHECKING:
    from pitfalls.tasks.path_star import PathStar

Edges = Iterable[Any]
"""(parent, child) pairs of integers: a list of tuples, an array or a tensor [E,2]."""


def check_graph(
    task: "PathStar", edges: Edges, start: SupportsIndex, goal: SupportsIndex
) -> tuple[list[tuple[int, int]], list[int]]:
    """Return the edges as pairs, and the path from the start to the goal.

    Raises:
        ConfigError: this is no graph of the task. The message names the edge or the node.
    """
    pairs = edge_pairs(edges)
    for i, pair in enumerate(pairs):
        for node in pair:
            node_value(task, node, f"edge {i}")
    first, last = node_value(task, start, "the start"), node_value(task, goal, "the goal")
    if len(pairs) != task.n_edges:
        raise ConfigError(f"{len(pairs)} edges: a graph of this run, {task}, has {task.n_edges}")
    arms = arms_of(pairs, first)
    if len(arms) != task.degree:
        raise ConfigError(f"the start, {first}, has {len(arms)} arms: a graph of this run, {task}, has {task.degree}")
    for arm in arms:
        if len(arm) != task.path_length:
            raise ConfigError(
                f"the arm {' '.join(map(str, arm))} has {len(arm)} nodes: in this run, {task}, an arm has {task.path_length}, "
                f"the start included"
            )
    return pairs, path_to(last, arms)


def edge_pairs(edges: Edges) -> list[tuple[int, int]]:
    """Return the edges as pairs of integers.

    Raises:
        ConfigError: these are no pairs of integers.
    """
    if not isinstance(edges, Iterable):
        raise ConfigError(f"edges={edges!r}: give a list of (parent, child) pairs")
    return [_pair(i, edge) for i, edge in enumerate(edges)]


def _pair(i: int, edge: Any) -> tuple[int, int]:
    try:
        a, b = edge
    except (TypeError, ValueError):
        raise ConfigError(f"edge {i} is {edge!r}: an edge is a pair of node values, parent and child") from None
    return integer(a, f"edge {i}"), integer(b, f"edge {i}")


def integer(value: Any, where: str) -> int:
    """Return a value as an integer, or raise a ConfigError that begins with ``where``."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise ConfigError(f"{where} has {value!r}: a node value is an integer") from None


def node_value(task: "PathStar", value: Any, where: str) -> int:
    """Return a value as a node value of the task, or raise a ConfigError that begins with ``where``."""
    node = integer(value, where)
    if not 0 <= node < task.n_values:
        raise ConfigError(f"{where} has {node}: the node values of this run are 0 to {task.n_values - 1} (task.n_values)")
    return node


def node_values(task: "PathStar", nodes: Any, name: str) -> list[int]:
    """Return the node values of the argument called ``name``, or raise a ConfigError that names it."""
    if not isinstance(nodes, Iterable) or not hasattr(nodes, "__getitem__") or isinstance(nodes, Mapping):
        example = f"[{nodes!r}]" if isinstance(nodes, int) else "[5, 1]"
        raise ConfigError(f"{name}={nodes!r}: give a list of node values, for example {name}={example}")
    return [node_value(task, node, name) for node in nodes]


def arms_of(pairs: Sequence[tuple[int, int]], start: int) -> list[list[int]]:
    """Return the nodes of each arm, the start included. Edges that no path from the start reaches are in no arm.

    Raises:
        ConfigError: the edges that the start reaches are not separate arms.
    """
    parent: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for a, b in pairs:
        if b in parent:
            raise ConfigError(f"node {b} has two parents, {parent[b]} and {a}: arms do not meet")
        parent[b] = a
        children.setdefault(a, []).append(b)
    if start in parent:
        raise ConfigError(f"an edge leads from {parent[start]} into the start, {start}; all edges lead away from it")
    return [_arm(start, child, children) for child in children.get(start, [])]


def _arm(start: int, child: int, children: dict[int, list[int]]) -> list[int]:
    """Return the nodes of an arm, the start included. No node has two parents, so the loop ends."""
    arm = [start, child]
    while following := children.get(arm[-1]):
        if len(following) > 1:
            raise ConfigError(f"node {arm[-1]} has {len(following)} children: arms branch at the start, {start}, alone")
        arm.append(following[0])
    return arm


def path_to(goal: int, arms: Sequence[list[int]]) -> list[int]:
    """Return the arm that ends at the goal.

    Raises:
        ConfigError: no arm does. The message names the ends.
    """
    path = next((arm for arm in arms if arm[-1] == goal), None)
    if path is None:
        ends = ", ".join(str(arm[-1]) for arm in arms)
        raise ConfigError(f"the goal, {goal}, is not the end of an arm; the ends are {ends}")
    return path
