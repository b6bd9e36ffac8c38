"""Files of path-star graphs: the authors' text lines, JSON lines or Parquet, each with its SHA-256 beside it.

A row is one graph with one goal. JSON lines and Parquet have the columns edges [[parent, child], ...], start, goal and path.
Text is packed by gzip if the file's name ends in ``.gz``.
"""

import gzip
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from pitfalls.schemas import ConfigError
from pitfalls.seeding import generator
from pitfalls.tasks.batch import Batch
from pitfalls.tasks.official_format import write_lines
from pitfalls.tasks.path_star import PathStar

CHUNK_GRAPHS, CHUNK_NUMBERS = 16384, 2**23
"""Largest number of graphs per chunk, and of numbers that sampling them holds. If they change, the same seed gives other data."""
COLUMNS = ("edges", "start", "goal", "path")
GZIP = ".gz"
GZIP_LEVEL = 6
SUFFIXES = {"official": (".txt",), "jsonl": (".jsonl", ".ndjson"), "parquet": (".parquet", ".pq")}
"""Endings of a file's name that promise a format."""
NOT_WRITTEN = (".zst", ".zstd", ".xz", ".lzma", ".bz2", ".lz4", ".zip", ".7z", ".tar", ".tgz", ".csv", ".tsv", ".json")
"""Endings that promise something else than a file of `write_dataset`."""


def write_dataset(
    output: Path,
    task: PathStar,
    n_graphs: int,
    *,
    seed: int,
    targets_per_graph: int,
    file_format: str,
    replace: bool,
    tell: Callable[[int, int], object] = lambda done, total: None,
) -> None:
    """Write a dataset and its checksum. Each file appears whole or not at all, and a checksum always fits its dataset.

    Args:
        output: the file. Its checksum goes to ``<output>.sha256``.
        task: the graphs.
        n_graphs: number of graphs.
        seed: root of the random stream, from which no training run draws. Graphs are drawn independently, so in a small task
            some occur twice.
        targets_per_graph: rows per graph, which differ in the goal.
        file_format: a key of ``WRITERS``.
        replace: whether existing files are replaced.
        tell: it is told how many graphs are written, and of how many.

    Raises:
        ConfigError: the graphs do not exist, the files exist already or cannot be made, the name promises another format, or a
            package is not installed.
    """
    _check_name(output, file_format)
    _check(output, task, n_graphs, targets_per_graph, replace)
    checksum = _checksum_path(output)
    part = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        with part.open("xb") as file:
            chunks = _followed(_chunks(task, n_graphs, seed, targets_per_graph), n_graphs, targets_per_graph, tell)
            if output.suffix.lower() == GZIP:  # without name and time, so that the same graphs give the same bytes
                with gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0) as packed:
                    WRITERS[file_format](cast(IO[bytes], packed), task, chunks)
            else:
                WRITERS[file_format](file, task, chunks)
            file.flush()
            os.fsync(file.fileno())
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        checksum.unlink(missing_ok=True)
        os.replace(part, output)
        part.write_text(f"{digest}  {output.name}\n")
        os.replace(part, checksum)
    finally:
        part.unlink(missing_ok=True)


def _checksum_path(output: Path) -> Path:
    return output.with_name(f"{output.name}.sha256")


def _check_name(output: Path, file_format: str) -> None:
    """Raise an error if the ending of a file's name promises something else than the format."""
    packed = output.suffix.lower() == GZIP
    suffix = output.with_suffix("").suffix.lower() if packed else output.suffix.lower()
    own = SUFFIXES[file_format]
    if packed and file_format == "parquet":
        raise ConfigError(f"--output {output}: Parquet is packed in itself; leave {GZIP} out")
    if suffix in NOT_WRITTEN:
        how = f"{own[0]}, or in {own[0]}{GZIP} to pack it" if file_format != "parquet" else own[0]
        raise ConfigError(f"--output {output}: a {suffix} file is not written here; let the name end in {how}")
    other = next((name for name, endings in SUFFIXES.items() if suffix in endings and name != file_format), None)
    if other is not None:
        raise ConfigError(
            f"--output {output}: --format {file_format} does not write a {suffix} file; add --format {other}, or let the name "
            f"end in {own[0]}"
        )


def _check(output: Path, task: PathStar, n_graphs: int, targets_per_graph: int, replace: bool) -> None:
    """Raise an error if the graphs do not exist or the files cannot be made."""
    if not 1 <= targets_per_graph <= task.degree:
        raise ConfigError(f"--targets-per-graph {targets_per_graph}: {task} has 1..{task.degree} goals")
    if n_graphs > task.n_distinct_graphs:
        raise ConfigError(
            f"--graphs {n_graphs}: {task} on {task.n_values} node values has only {task.n_distinct_graphs} distinct graphs; "
            "raise --n-values"
        )
    if not output.name or not output.parent.is_dir():
        raise ConfigError(f"--output {output}: it must name a file in an existing folder")
    for path in (output, _checksum_path(output)):
        if path.exists() and not path.is_file():
            raise ConfigError(f"--output: {path} is not a regular file")
        if path.exists() and not replace:
            raise ConfigError(f"--output: {path} exists; --force replaces it")


def _chunks(task: PathStar, n_graphs: int, seed: int, targets_per_graph: int) -> Iterator[Batch]:
    """Yield the rows in chunks of bounded size. Chunk i depends only on the seed, i and the sizes."""
    size = min(CHUNK_GRAPHS, max(1, CHUNK_NUMBERS // (task.n_values * targets_per_graph)))
    for index, done in enumerate(range(0, n_graphs, size)):
        n = min(size, n_graphs - done)
        yield task.sample(n, generator(seed, "file", index), targets_per_graph=targets_per_graph)


def _followed(
    chunks: Iterator[Batch], n_graphs: int, targets_per_graph: int, tell: Callable[[int, int], object]
) -> Iterator[Batch]:
    """Yield the chunks, and tell the number of graphs in those that are written."""
    done = 0
    for chunk in chunks:
        yield chunk
        done += len(chunk.prompt) // targets_per_graph
        tell(done, n_graphs)


# ---------------------------------------------------------------------- formats


def _write_official(file: IO[bytes], task: PathStar, chunks: Iterator[Batch]) -> None:
    """Write the lines that `pitfalls.tasks.official_format` reads."""
    for batch in chunks:
        file.write(write_lines(task, batch))


def _write_jsonl(file: IO[bytes], task: PathStar, chunks: Iterator[Batch]) -> None:
    """Write one JSON object per row."""
    for batch in chunks:
        for values in zip(*_columns(task, batch), strict=True):
            file.write(json.dumps(dict(zip(COLUMNS, values, strict=True))).encode() + b"\n")


def _write_parquet(file: IO[bytes], task: PathStar, chunks: Iterator[Batch]) -> None:
    """Write one row group per chunk."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ConfigError("--format parquet needs pyarrow: pip install 'pitfalls[parquet]'") from None
    numbers = pa.list_(pa.int64())
    schema = pa.schema(list(zip(COLUMNS, (pa.list_(numbers), pa.int64(), pa.int64(), numbers), strict=True)))
    with pq.ParquetWriter(file, schema) as writer:
        for batch in chunks:
            writer.write_table(pa.table(_columns(task, batch), schema=schema))


def _columns(task: PathStar, batch: Batch) -> list[list[Any]]:
    """Return edges [B, E, 2], start [B], goal [B] and path [B, L] as lists."""
    graph = (task.edges(batch.prompt), task.start(batch.prompt), task.goal(batch.prompt), batch.target)
    return [column.tolist() for column in graph]


WRITERS = {"official": _write_official, "jsonl": _write_jsonl, "parquet": _write_parquet}
