"""Parse one line of the authors' text format in readable steps.

This is the reference for the fast parser of `pitfalls.tasks.official_format`. Its messages describe the error in a line.
"""

import re
from collections import defaultdict
from itertools import chain, pairwise
from typing import NamedTuple

from pitfalls.tasks.graph_files import BYTE_ORDER_MARK

MAX_DIGITS = 9
"""Largest number of digits of a node value. A pair of longer values would not fit into a 64-bit integer."""


class Row(NamedTuple):
    """One line as numbers."""

    edges: list[tuple[int, int]]
    """(parent, child) pairs in the order of the line."""
    start: int
    """First node of the query."""
    goal: int
    """Second node of the query."""
    path: list[int]
    """Nodes of the answer."""

    @property
    def degree(self) -> int:
        """Number of arms: d = edges / (l-1)."""
        return len(self.edges) // (len(self.path) - 1)

    @property
    def numbers(self) -> list[int]:
        """All numbers in the order of the line."""
        return [*chain.from_iterable(self.edges), self.start, self.goal, *self.path]


def parse_line(line: bytes) -> Row:
    """Parse a line, with or without its ending, and check that it is a path-star graph with its answer.

    Raises:
        ValueError: it is not. The message has the reason.
    """
    content = line[:-2] if line.endswith(b"\r\n") else line.removesuffix(b"\n")
    if not content:
        raise ValueError("the line is empty")
    if content.startswith(BYTE_ORDER_MARK):
        raise ValueError("a byte-order mark, which only the start of a file may have (were two files joined?); remove it")
    if bad := re.search(rb"[^0-9,|/=]", content):
        raise ValueError(f"byte {bad[0]!r} at column {bad.start() + 1}: a line has digits and , | / = only")
    text = content.decode("ascii")
    if re.findall("[/=]", text) != ["/", "="]:
        raise ValueError("a line is edges/query=answer, with one '/' and then one '='")
    edge_list, query, answer = re.split("[/=]", text)
    edges = [_pair(part, f"edge {i}") for i, part in enumerate(edge_list.split("|"), 1)]
    row = Row(edges, *_pair(query, "the query"), [_number(part, "the answer") for part in answer.split(",")])
    _check_shape(row)
    _check_graph(row)
    _check_answer(row)
    return row


def _pair(text: str, name: str) -> tuple[int, int]:
    parts = text.split(",")
    if len(parts) != 2:
        raise ValueError(f"{name} is {_short(text)}: it must be two numbers joined by one ','")
    return _number(parts[0], name), _number(parts[1], name)


def _number(text: str, name: str) -> int:
    if not re.fullmatch(f"0|[1-9][0-9]{{0,{MAX_DIGITS - 1}}}", text):
        raise ValueError(f"{name} has {_short(text)} for a number: 1 to {MAX_DIGITS} digits, no leading zero")
    return int(text)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...")


def _check_shape(row: Row) -> None:
    """Raise an error unless the edges make whole arms."""
    if len(row.path) < 2:
        raise ValueError("the answer has 1 node: it needs at least 2, the start and the goal")
    if len(row.edges) % (len(row.path) - 1):
        raise ValueError(
            f"{len(row.edges)} edges are no whole number of arms of {len(row.path) - 1} edges (the answer has "
            f"{len(row.path)} nodes)"
        )


def _check_graph(row: Row) -> None:
    """Raise an error unless d arms of l-1 edges leave the start and every node but the start has one parent."""
    parent_of: dict[int, int] = {}
    children_of = defaultdict(list)
    for parent, child in row.edges:
        if child in parent_of:
            raise ValueError(f"no path-star graph: node {child} is the child of two edges")
        parent_of[child] = parent
        children_of[parent].append(child)
    if row.start in parent_of:
        raise ValueError(f"no path-star graph: an edge leads into the start, {row.start}")
    level = [row.start]
    # walk down from the start, one level at a time: d children, then one child each, then leaves
    for depth, expected in enumerate([row.degree] + [1] * (len(row.path) - 2) + [0]):
        for node in level:
            if len(children_of[node]) != expected:
                raise ValueError(
                    f"no path-star graph with arms of {len(row.path)} nodes: node {node}, {depth} steps from the start, "
                    f"has {len(children_of[node])} outgoing edges, not {expected}"
                )
        level = [child for node in level for child in children_of[node]]


def _check_answer(row: Row) -> None:
    """Raise an error unless the answer goes from the start to the goal along edges."""
    if row.path[0] != row.start:
        raise ValueError(f"the answer begins at {row.path[0]}, the query at {row.start}")
    if row.path[-1] != row.goal:
        raise ValueError(f"the answer ends at {row.path[-1]}, the query asks for {row.goal}")
    edges = set(row.edges)
    for parent, child in pairwise(row.path):
        if (parent, child) not in edges:
            raise ValueError(f"the answer steps from {parent} to {child}, which is no edge")
