"""Read and write the text lines of the published code (github.com/gregorbachmann/Next-Token-Failures).

One graph per line: directed edges (parent,child) in prompt order, then the query, then the answer:

    a,b|c,d|...|y,z/start,goal=start,v1,...,goal

A number has one to nine digits, no sign, no space and no leading zero. A line ends in LF or CRLF. The last line may have no
ending. An empty line is always malformed. The first line sets the shape of the whole file: l nodes in the answer, and
d = edges / (l-1). The file may be packed by gzip, and may begin with a byte-order mark (`pitfalls.tasks.graph_files`).

`read_batches` parses chunks of lines as arrays of bytes. If this parser refuses a chunk, the readable `parse_line` reads it
line by line and reports the error. A test makes sure that both accept the same lines.
"""

from collections.abc import Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int, Int64, UInt8
from torch import Tensor

from pitfalls.runs.files import FileError
from pitfalls.tasks.batch import Batch
from pitfalls.tasks.graph_files import kind_of, open_graphs
from pitfalls.tasks.official_line import MAX_DIGITS, Row, parse_line
from pitfalls.tasks.path_star import Outcome, PathStar

MAX_VALUES = 10**MAX_DIGITS
"""Largest number of node values. Larger values have too many digits, and a pair of them does not fit into 64 bits."""
MAX_LINE_BYTES = 2**20
"""Largest length of the first line in bytes. The shape limits the length of the other lines."""
CHUNK_LINES = 8192
"""Default number of lines per batch."""


class OfficialFormatError(FileError):
    """A file that is not in the format. The message is ``file:line: reason``. Lines count from 1."""

    def __init__(self, path: Path | str, line_number: int, reason: object) -> None:
        super().__init__(f"{path}:{line_number}: {reason}")


# ---------------------------------------------------------------------- files


def infer_shape(path: Path | str) -> tuple[int, int]:
    """Return the (degree, path_length) of a file, from its first line.

    Raises:
        OfficialFormatError: the file is empty or its first line is malformed.
        FileError: its gzip data are damaged.
    """
    with open_graphs(path) as file:
        task = _task_of(path, file.readline(MAX_LINE_BYTES + 1), MAX_VALUES)
    return task.degree, task.path_length


def infer_n_values(path: Path | str) -> int:
    """Return the smallest N for the node values of a file: their maximum + 1. The whole file is read.

    Raises:
        OfficialFormatError: the file is empty or a line is malformed.
    """
    task = PathStar(*infer_shape(path), MAX_VALUES)
    return 1 + max(int(task.edges(batch.prompt).max()) for batch in read_batches(path, MAX_VALUES))


def read_batches(path: Path | str, n_values: int, *, chunk_lines: int = CHUNK_LINES) -> Iterator[Batch]:
    """Read a file as tokens of ``PathStar(*infer_shape(path), n_values)``, in the order of its lines.

    Args:
        path: the file. It is read once, from front to back, so it may be a pipe.
        n_values: number of node values N of the vocabulary. `infer_n_values` finds the smallest that fits.
        chunk_lines: rows per batch. The last batch may have fewer. Memory is proportional to it.

    Yields:
        Batches of prompts [chunk_lines, P] and targets [chunk_lines, L]. Every row is a path-star graph with its answer.

    Raises:
        OfficialFormatError: the file is empty or a line is malformed. The batches before that line's chunk have been yielded.
        FileError: its gzip data are damaged.
        ValueError: n_values or chunk_lines is out of range.
    """
    _check_n_values(n_values)
    if chunk_lines < 1:
        raise ValueError(f"chunk_lines={chunk_lines}: it must be at least 1")
    with open_graphs(path) as file:
        first = file.readline(MAX_LINE_BYTES + 1)
        task = _task_of(path, first, n_values)
        # A line is read one byte beyond the longest right one: enough to refuse it, whatever its length.
        lines = chain([first], iter(partial(file.readline, _longest_line(task) + 1), b""))
        first_number = 1
        while chunk := list(islice(lines, chunk_lines)):
            batch = parse_chunk(task, chunk)
            yield parse_chunk_reference(task, chunk, path, first_number) if batch is None else batch
            first_number += len(chunk)


def write_lines(task: PathStar, batch: Batch) -> bytes:
    """Return the lines of a batch, each with its LF. `read_batches` reads them back as the same tokens.

    Raises:
        ValueError: the batch does not have the task's shape, or a node value is outside 0..n_values-1.
    """
    _check_n_values(task.n_values)
    if batch.prompt.shape[1:] != (task.prompt_length,) or batch.target.shape[1:] != (task.target_length,):
        shapes = f"prompt {list(batch.prompt.shape)} and target {list(batch.target.shape)}"
        raise ValueError(f"{shapes} are no rows of {task}")
    edges = task.edges(batch.prompt).flatten(1)
    numbers = torch.cat([edges, batch.prompt[:, -3:-1], batch.target], 1).cpu().numpy()
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < task.n_values:
        raise ValueError(f"node values {numbers.min()}..{numbers.max()} are not all within 0..{task.n_values - 1}")
    # Write every number with the same count of digits, then its separator, and at last drop the leading zeros.
    width = len(str(task.n_values - 1))
    powers = 10 ** np.arange(width - 1, -1, -1)
    text = np.empty((*numbers.shape, width + 1), np.uint8)
    text[..., :width] = numbers[..., None] // powers % 10 + ord("0")
    text[..., width] = _separators(task)
    kept = np.ones(text.shape, bool)  # the last digit is always kept: the number may be 0
    kept[..., : width - 1] = numbers[..., None] >= powers[:-1]
    return text[kept].tobytes()


# ---------------------------------------------------------------------- the fast parser


def parse_chunk(task: PathStar, lines: list[bytes]) -> Batch | None:
    """Parse lines of one shape as arrays of bytes.

    Returns:
        Their tokens, or None if a line is malformed. `parse_chunk_reference` reports which line, and why.
    """
    # 1. Find the bytes that are no digits. They are unsigned, so a byte below "0" wraps around and is above 9.
    text = np.frombuffer(_normal_endings(lines), np.uint8)
    ends = np.flatnonzero(text - ord("0") > 9)
    # 2. All lines have the same shape, so each must have the same separators in the same order.
    separators = _separators(task)
    if len(ends) != len(lines) * len(separators):
        return None
    if (text[ends].reshape(len(lines), -1) != separators).any():
        return None
    # 3. Before each separator there is one number. Its value must be a node value.
    numbers = _numbers_before(text, ends)
    if numbers is None or numbers.max() >= task.n_values:
        return None
    # 4. The numbers become tokens, and each row must be a path-star graph with the right answer.
    batch = _batch(task, numbers.reshape(len(lines), -1))
    valid = is_path_star(task, batch.prompt) & (task.verify(batch.prompt, batch.target) == Outcome.RIGHT_ARM)
    return batch if valid.all() else None


def is_path_star(task: PathStar, prompt: Int[Tensor, "B P"]) -> Bool[Tensor, " B"]:
    """Return which prompts hold a path-star graph of the task's shape around their start.

    All arms are followed from the start, one level at a time. If every step finds an edge and all visited nodes are
    distinct, then d(l-1) different edges were used. These are all edges of the prompt, so none is left that could be wrong.

    Args:
        task: the task that sets the shape.
        prompt: prompts whose node values are all within 0..n_values-1.
    """
    edge = task.edges(prompt)
    # An edge becomes one number, parent * N + child. Sorted numbers are sorted by parent, so the edges that leave a node
    # are neighbours: the first of them is at the place where node * N would be inserted.
    codes = (edge[..., 0] * task.n_values + edge[..., 1]).sort(1).values
    node = task.start(prompt)[:, None]
    met, found = [node], torch.ones_like(node[:, 0], dtype=torch.bool)
    which = torch.arange(task.degree, device=prompt.device)  # take d edges of the start, and later one of every other node
    for _ in range(task.path_length - 1):
        place = torch.searchsorted(codes, node * task.n_values) + which
        child = codes.gather(1, place.clamp(max=task.n_edges - 1)) - node * task.n_values
        node = child.clamp(0, task.n_values - 1)
        found &= (child == node).all(1)  # a child outside 0..N-1 means that the edge at that place has another parent
        met.append(node)
        which = which[:1]  # from here on the first edge of each node
    return found & (torch.cat(met, 1).sort(1).values.diff(dim=1) > 0).all(1)


def _numbers_before(text: UInt8[np.ndarray, " C"], ends: Int64[np.ndarray, " K"]) -> Int64[np.ndarray, " K"] | None:
    """Return the numbers that end before each of the places, or None if one is empty, too long or has a leading zero.

    Args:
        text: bytes of the lines. Between two places there are only digits.
        ends: places of the separators in the text.
    """
    n_digits = np.diff(ends, prepend=-1) - 1
    longest = int(n_digits.max())
    if n_digits.min() < 1 or longest > MAX_DIGITS:
        return None
    if ((n_digits > 1) & (text[ends - n_digits] == ord("0"))).any():
        return None
    # Add up all numbers at once, digit by digit from the right: round k adds the digits that count 10^k.
    numbers = (text[ends - 1] - ord("0")).astype(np.int64)
    for k in range(1, longest):
        digit = text[np.maximum(ends - 1 - k, 0)] - ord("0")
        numbers += np.where(n_digits > k, digit, 0) * np.int64(10**k)
    return numbers


def _batch(task: PathStar, numbers: Int64[np.ndarray, "B K"]) -> Batch:
    """Return the tokens of lines given as numbers: 2 per edge, start, goal, then the l nodes of the answer."""
    n_ends = 2 * task.n_edges
    prompt = np.empty((len(numbers), task.prompt_length), np.int64)
    prompt[:, 0:-3:3] = numbers[:, 0:n_ends:2]
    prompt[:, 1:-3:3] = numbers[:, 1:n_ends:2]
    prompt[:, 2:-3:3] = task.vocabulary.id("|")
    prompt[:, -4] = task.vocabulary.id("/")
    prompt[:, -3:-1] = numbers[:, n_ends : n_ends + 2]
    prompt[:, -1] = task.vocabulary.id("=")
    return Batch(torch.from_numpy(prompt), torch.from_numpy(numbers[:, n_ends + 2 :].copy()))


# ---------------------------------------------------------------------- the reference parser


def parse_chunk_reference(task: PathStar, lines: list[bytes], path: Path | str, first_number: int) -> Batch:
    """Parse lines as `parse_chunk` does, but one at a time.

    Args:
        task: the task that sets the shape.
        lines: the lines of the chunk.
        path: the file, for the message.
        first_number: number of the chunk's first line in the file, for the message.

    Raises:
        OfficialFormatError: a line is malformed.
    """
    rows = []
    for number, line in enumerate(lines, first_number):
        try:
            if len(line) > _longest_line(task):
                raise ValueError(f"the line is longer than a line of {task}, the shape of line 1, can be")
            rows.append(parse_line(line))
            _check_fits(task, rows[-1])
        except ValueError as error:
            raise OfficialFormatError(path, number, error) from None
    return _batch(task, np.array([row.numbers for row in rows], np.int64))


def _check_fits(task: PathStar, row: Row) -> None:
    """Raise an error unless a row has the task's shape and node values."""
    if (row.degree, len(row.path)) != (task.degree, task.path_length):
        raise ValueError(f"the graph is a G({row.degree},{len(row.path)}); line 1 has a {task}")
    _check_values(row, task.n_values)


# ---------------------------------------------------------------------- what both parsers share


def _task_of(path: Path | str, first_line: bytes, n_values: int) -> PathStar:
    """Return the task of a file, from its first line. The error names the kind of a file that has other content."""
    try:
        if not first_line:
            raise ValueError("the file is empty")
        if len(first_line) > MAX_LINE_BYTES:
            raise ValueError(f"the first line is longer than {MAX_LINE_BYTES} bytes")
        row = parse_line(first_line)
        _check_values(row, n_values)
        return PathStar(row.degree, len(row.path), n_values)
    except ValueError as error:
        raise OfficialFormatError(path, 1, kind_of(first_line) or error) from None


def _check_values(row: Row, n_values: int) -> None:
    if max(row.numbers) >= n_values:
        raise ValueError(f"node value {max(row.numbers)} is not within 0..{n_values - 1} (n_values={n_values})")


def _check_n_values(n_values: int) -> None:
    if not 1 <= n_values <= MAX_VALUES:
        raise ValueError(f"n_values={n_values}: the text format has 1..{MAX_VALUES} node values")


def _separators(task: PathStar) -> UInt8[np.ndarray, " K"]:
    """Return the byte that follows each number of a line."""
    line = ",|" * (task.n_edges - 1) + ",/" + ",=" + "," * (task.path_length - 1) + "\n"
    return np.frombuffer(line.encode(), np.uint8)


def _longest_line(task: PathStar) -> int:
    """Return the length in bytes of the longest line that can be right: numbers of all digits, separators, and a CR."""
    return len(_separators(task)) * (MAX_DIGITS + 1) + 1


def _normal_endings(lines: list[bytes]) -> bytes:
    """Return the lines as one text in which each line ends in LF."""
    text = b"".join(lines).replace(b"\r\n", b"\n")
    return text if text.endswith(b"\n") else text + b"\n"
