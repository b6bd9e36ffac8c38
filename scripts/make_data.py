r"""Write a dataset of path-star graphs, as the authors' text lines, JSON lines or Parquet, with its SHA-256 beside it.

    python scripts/make_data.py --degree 2 --path-length 5 --n-values 50 --graphs 20000 --seed 0 --output g2_5.txt
    python scripts/make_data.py --degree 5 --path-length 5 --n-values 50 --graphs 1000000 --seed 1 \
        --targets-per-graph 5 --format parquet --output g5_5.parquet
    sha256sum --check g2_5.txt.sha256

A row is one graph with one goal; JSON lines and Parquet have the columns edges [[parent, child], ...], start, goal and
path. The same arguments give the same bytes (of Parquet: with the same pyarrow). Graphs are drawn independently, so in
a small task some occur twice. They come from a random stream that no training run draws from.
An interrupted run leaves no dataset.
"""

import argparse
import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

if TYPE_CHECKING:  # torch is imported after the arguments are parsed: --help stays fast
    from pitfalls.tasks.batch import Batch
    from pitfalls.tasks.path_star import PathStar

MAX_N_VALUES = 10_000
"""One graph takes memory proportional to n_values."""
CHUNK_GRAPHS, CHUNK_NUMBERS = 16384, 2**23
"""Upper bounds, per chunk, on graphs and on the numbers that sampling them holds. They are part of what a seed means."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit status is 0, 1 (the disk refused) or 2 (the arguments are wrong)."""
    options = _parser().parse_args(arguments)
    try:
        _check_output(options.output, options.force)
        write_dataset(options)
    except (ValueError, ImportError) as error:
        return _fail(error, 2)
    except OSError as error:
        return _fail(error, 1)
    return 0


def write_dataset(options: argparse.Namespace) -> None:
    """Write the dataset and its checksum; either appears whole or not at all, and never a checksum of other data.

    Raises:
        ValueError: the task does not exist or has fewer distinct graphs than asked for.
        ImportError: the format needs a package that is not installed.
    """
    task = _task(options)
    output, checksum = options.output, _checksum_path(options.output)
    part = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        with part.open("xb") as file:
            WRITERS[options.format](file, task, _chunks(task, options))
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


def _task(options: argparse.Namespace) -> "PathStar":
    """The task, with the sizes checked that `PathStar` does not know of."""
    from pitfalls.tasks.path_star import PathStar

    task = PathStar(options.degree, options.path_length, options.n_values)
    if not 1 <= options.targets_per_graph <= task.degree:
        raise ValueError(f"--targets-per-graph {options.targets_per_graph}: {task} has 1..{task.degree} goals")
    if options.graphs > task.n_distinct_graphs:
        raise ValueError(
            f"--graphs {options.graphs}: {task} on {task.n_values} node values has only {task.n_distinct_graphs} distinct "
            "graphs; raise --n-values"
        )
    return task


def _chunks(task: "PathStar", options: argparse.Namespace) -> Iterator["Batch"]:
    """The rows, a bounded number at a time; chunk i depends on the seed, i and the sizes alone."""
    from pitfalls.seeding import generator

    k = options.targets_per_graph
    size = min(CHUNK_GRAPHS, max(1, CHUNK_NUMBERS // (task.n_values * k)))
    for index, done in enumerate(range(0, options.graphs, size)):
        n_graphs = min(size, options.graphs - done)
        yield task.sample(n_graphs, generator(options.seed, "file", index), targets_per_graph=k)


# ---------------------------------------------------------------------- formats


def _write_official(file: BinaryIO, task: "PathStar", chunks: Iterator["Batch"]) -> None:
    """The lines that `pitfalls.tasks.official_format` reads."""
    from pitfalls.tasks.official_format import write_lines

    for batch in chunks:
        file.write(write_lines(task, batch))


def _write_jsonl(file: BinaryIO, task: "PathStar", chunks: Iterator["Batch"]) -> None:
    """One JSON object per row."""
    for batch in chunks:
        for values in zip(*_columns(task, batch), strict=True):
            file.write(json.dumps(dict(zip(COLUMNS, values, strict=True))).encode() + b"\n")


def _write_parquet(file: BinaryIO, task: "PathStar", chunks: Iterator["Batch"]) -> None:
    """One row group per chunk."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ImportError("--format parquet needs pyarrow: pip install 'pitfalls[parquet]'") from None
    numbers = pa.list_(pa.int64())
    schema = pa.schema(list(zip(COLUMNS, (pa.list_(numbers), pa.int64(), pa.int64(), numbers), strict=True)))
    with pq.ParquetWriter(file, schema) as writer:
        for batch in chunks:
            writer.write_table(pa.table(_columns(task, batch), schema=schema))


def _columns(task: "PathStar", batch: "Batch") -> list[list[Any]]:
    """Edges [B,E,2], start [B], goal [B] and path [B,L], as lists."""
    graph = (task.edges(batch.prompt), task.start(batch.prompt), task.goal(batch.prompt), batch.target)
    return [column.tolist() for column in graph]


COLUMNS = ("edges", "start", "goal", "path")
WRITERS = {"official": _write_official, "jsonl": _write_jsonl, "parquet": _write_parquet}


# ---------------------------------------------------------------------- arguments and errors


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage."""
        sys.exit(_fail(message, 2))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    for name, low, high, text in (
        ("--degree", 1, MAX_N_VALUES, "d, the arms of the star"),
        ("--path-length", 2, MAX_N_VALUES, "l, nodes of an arm, the start included"),
        ("--n-values", 2, MAX_N_VALUES, "N, node values to draw from; at least 1 + d(l-1)"),
        ("--graphs", 1, 10**15, "graphs to draw"),
        ("--seed", 0, 2**63 - 1, "root of the random stream"),
    ):
        parser.add_argument(name, type=_integer(low, high), required=True, help=text)
    parser.add_argument(
        "--targets-per-graph",
        type=_integer(1, MAX_N_VALUES),
        default=1,
        help="rows per graph, which differ in the goal",
    )
    parser.add_argument("--format", choices=WRITERS, default="official", help="default: official")
    parser.add_argument("--output", type=Path, required=True, help="file to write; its checksum goes to OUTPUT.sha256")
    parser.add_argument("--force", action="store_true", help="replace existing files")
    return parser


def _integer(low: int, high: int) -> Callable[[str], int]:
    """A parser of plain integers in low..high."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high):
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer in {low}..{high}")
        return int(text)

    return parse


def _checksum_path(output: Path) -> Path:
    return output.with_name(output.name + ".sha256")


def _check_output(output: Path, force: bool) -> None:
    """Raise ValueError unless both files can be made."""
    if not output.name or not output.parent.is_dir():
        raise ValueError(f"--output {output}: it must name a file in an existing folder")
    for path in (output, _checksum_path(output)):
        if path.exists() and not path.is_file():
            raise ValueError(f"--output: {path} is not a regular file")
        if path.exists() and not force:
            raise ValueError(f"--output: {path} exists; --force replaces it")


def _stop(number: int, frame: object) -> NoReturn:
    """Turn a signal into an exit that cleans up."""
    sys.exit(_fail("stopped; what is not finished leaves no file", 128 + number))


def _fail(error: object, status: int) -> int:
    print("error:", " ".join(str(error).split()), file=sys.stderr)
    return status


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    sys.exit(main())
