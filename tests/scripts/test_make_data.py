"""scripts/make_data.py and pitfalls.tasks.dataset_files: the same arguments give the same bytes, and no file is half-written."""

import errno
import gzip
import hashlib
import importlib.util
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest
import torch

from pitfalls.experiment.cli import exit_on_error
from pitfalls.seeding import generator
from pitfalls.tasks import dataset_files
from pitfalls.tasks.batch import Batch
from pitfalls.tasks.official_format import read_batches, write_lines
from pitfalls.tasks.path_star import PathStar

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_data.py"
TASK = PathStar(2, 5, 50)
SIZES = {"--degree": 2, "--path-length": 5, "--n-values": 50, "--graphs": 25, "--seed": 3}


@pytest.fixture
def script():
    """Return the script as a fresh module."""
    spec = importlib.util.spec_from_file_location("make_data", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arguments(output: Path, *flags: str, **changed: object) -> list[str]:
    options = SIZES | {"--output": output} | {f"--{name.replace('_', '-')}": value for name, value in changed.items()}
    return [str(part) for pair in options.items() for part in pair] + list(flags)


def make(script, output: Path, *flags: str, **changed: object) -> bytes:
    with mock.patch.object(sys, "argv", ["make_data.py", *arguments(output, *flags, **changed)]):
        script.main()
    return output.read_bytes()


def fails(script, capsys, *parts: str) -> tuple[int, str]:
    """Return the one line on stderr of a call that fails."""
    with mock.patch.object(sys, "argv", ["make_data.py", *parts]), pytest.raises(SystemExit) as stopped:
        exit_on_error(script.main)
    status = stopped.value.code
    out, err = capsys.readouterr()
    assert not out
    assert re.fullmatch("error: [^\n]+\n", err), err
    return status, err


def rows(path: Path) -> list[dict]:
    """Return the rows that a JSON lines or Parquet file should have, from the file of authors' lines."""
    batch = next(read_batches(path, TASK.n_values))
    columns = (TASK.edges(batch.prompt), TASK.start(batch.prompt), TASK.goal(batch.prompt), batch.target)
    names = ("edges", "start", "goal", "path")
    return [dict(zip(names, row, strict=True)) for row in zip(*(c.tolist() for c in columns), strict=True)]


# ---------------------------------------------------------------------- contents


@pytest.mark.parametrize("kind", ["official", "jsonl", "parquet"])
def test_same_arguments_same_bytes(script, tmp_path, kind):
    """Guards against a seed that is ignored, and files that depend on something else (time, hash order)."""
    first, again = (make(script, tmp_path / name, format=kind) for name in "ab")
    assert first == again
    assert make(script, tmp_path / "c", format=kind, seed=4) != first


def test_chunks_are_the_named_random_streams(script, tmp_path, monkeypatch):
    """Guards against a chunk that repeats another's graphs, and a last chunk that is cut, doubled or too long."""
    monkeypatch.setattr(dataset_files, "CHUNK_GRAPHS", 10)
    chunks = [TASK.sample(n, generator(3, "file", i)) for i, n in enumerate((10, 10, 5))]
    assert make(script, tmp_path / "data") == b"".join(write_lines(TASK, chunk) for chunk in chunks)


def test_memory_bound_of_a_chunk():
    """Guards against a chunk that does not fit the memory, for many node values or many rows per graph."""
    batch = next(dataset_files._chunks(PathStar(100, 2, 10000), 25, 3, 100))
    assert len(batch.prompt) == 800


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_formats_hold_the_same_rows(script, tmp_path, monkeypatch, kind):
    """Guards against swapped columns, and rows lost between chunks, in one of the formats."""
    monkeypatch.setattr(dataset_files, "CHUNK_GRAPHS", 10)
    make(script, tmp_path / "official")
    make(script, tmp_path / "other", format=kind)
    if kind == "jsonl":
        found = [json.loads(line) for line in (tmp_path / "other").read_text().splitlines()]
    else:
        found = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "other").to_pylist()
    assert found == rows(tmp_path / "official")
    assert len(found) == 25


def test_targets_per_graph(script, tmp_path):
    """Guards against an option that is ignored, or counts rows instead of graphs."""
    make(script, tmp_path / "data", targets_per_graph=2)
    batch: Batch = next(read_batches(tmp_path / "data", TASK.n_values))
    assert len(batch.prompt) == 50
    assert torch.equal(batch.prompt[::2, :-2], batch.prompt[1::2, :-2])
    assert (TASK.goal(batch.prompt[::2]) != TASK.goal(batch.prompt[1::2])).all()


def test_checksum_is_that_of_sha256sum(script, tmp_path):
    """Guards against a checksum file with another format, another name or the digest of other bytes."""
    text = make(script, tmp_path / "data")
    assert (tmp_path / "data.sha256").read_text() == f"{hashlib.sha256(text).hexdigest()}  data\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "data.sha256"]


@pytest.mark.parametrize(
    ("kind", "name"), [("official", "g.txt.gz"), ("official", "g.gz"), ("official", "G.TXT.GZ"), ("jsonl", "g.jsonl.gz")]
)
def test_a_name_in_gz_is_packed(script, tmp_path, kind, name):
    """Guards against plain text in a file that says gzip, and against the time or the name in its bytes."""
    plain = make(script, tmp_path / "plain", format=kind)
    packed = make(script, tmp_path / name, format=kind)
    assert packed.startswith(b"\x1f\x8b")
    assert gzip.decompress(packed) == plain
    assert packed[3:8] == bytes(5), "neither flags nor time"
    (tmp_path / "later").mkdir()
    with mock.patch("time.time", return_value=2e9):
        assert make(script, tmp_path / "later" / name, format=kind) == packed
    assert (tmp_path / f"{name}.sha256").read_text() == f"{hashlib.sha256(packed).hexdigest()}  {name}\n"
    if kind == "official":
        batches = [next(read_batches(tmp_path / file, TASK.n_values)) for file in (name, "plain")]
        assert torch.equal(batches[0].prompt, batches[1].prompt)


def test_many_graphs_give_signs_of_life(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(dataset_files, "CHUNK_GRAPHS", 10)
    monkeypatch.setattr("pitfalls.experiment.progress.PLAIN_EVERY_S", 0.0)
    make(script, tmp_path / "data", targets_per_graph=2)
    shown = [line.partition(",")[0] for line in capsys.readouterr().err.splitlines()]
    assert shown == [f"writes data: {done} of 25 graphs" for done in (10, 20, 25)]


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("g.txt.zst", "official", "a .zst file is not written here; let the name end in .txt, or in .txt.gz to pack it"),
        ("g.txt.xz", "official", "a .xz file is not written here"),
        ("g.txt.bz2", "official", "a .bz2 file is not written here"),
        ("g.ZIP", "official", "a .zip file is not written here"),
        ("g.tar.gz", "official", "a .tar file is not written here"),
        ("g.csv", "jsonl", "a .csv file is not written here; let the name end in .jsonl, or in .jsonl.gz to pack it"),
        ("g.json", "jsonl", "a .json file is not written here; let the name end in .jsonl"),
        (
            "g.parquet",
            "official",
            "--format official does not write a .parquet file; add --format parquet, or let the name end in .txt",
        ),
        ("g.jsonl", "official", "add --format jsonl, or let the name end in .txt"),
        ("g.jsonl.gz", "official", "add --format jsonl, or let the name end in .txt"),
        ("g.txt", "parquet", "add --format official, or let the name end in .parquet"),
        ("g.txt.gz", "jsonl", "add --format official, or let the name end in .jsonl"),
        ("g.parquet.gz", "parquet", "Parquet is packed in itself; leave .gz out"),
        ("g.parquet.zst", "parquet", "a .zst file is not written here; let the name end in .parquet"),
    ],
)
def test_a_name_that_promises_something_else_is_refused(script, tmp_path, capsys, name, kind, reason):
    """Guards against a file whose name lies about what is in it."""
    status, line = fails(script, capsys, *arguments(tmp_path / name, format=kind))
    assert status == 2
    assert f"--output {tmp_path / name}: " in line
    assert reason in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("existing", ["data", "data.sha256"])
def test_existing_files_are_kept_without_force(script, tmp_path, capsys, existing):
    """Guards against the loss of a dataset that a result depends on."""
    (tmp_path / existing).write_text("mine")
    status, line = fails(script, capsys, *arguments(tmp_path / "data"))
    assert (status, (tmp_path / existing).read_text()) == (2, "mine")
    assert f"{existing} exists; --force replaces it" in line
    make(script, tmp_path / "data", "--force")
    assert (tmp_path / existing).read_text() != "mine"


WRONG = {
    "too few values": ({"n_values": 8}, "n_values=8 is too small, it must be at least 9"),
    "too many targets": ({"targets_per_graph": 3}, r"--targets-per-graph 3: G\(2,5\) has 1..2 goals"),
    "too few graphs exist": ({"path_length": 2, "n_values": 3, "graphs": 4}, "has only 3 distinct graphs"),
    "no arms": ({"degree": 0}, "--degree: '0' is not an integer in 1.."),
    "path of one": ({"path_length": 1}, "--path-length: '1' is not an integer in 2.."),
    "no graphs": ({"graphs": 0}, "--graphs: '0' is not an integer >= 1"),
    "negative": ({"graphs": -5}, "--graphs: '-5' is not an integer"),
    "seed below 0": ({"seed": -1}, "--seed: '-1' is not an integer"),
    "no number": ({"n_values": "fifty"}, "--n-values: 'fifty' is not an integer"),
    "giant": ({"n_values": "9" * 5000}, "--n-values: '9+' is not an integer"),
    "no such format": ({"format": "csv"}, r"--format: invalid choice: 'csv' \(choose from"),
    "no such option": ({"arms": 2}, "--arms: there is no such option or argument; --help lists all"),
}


@pytest.mark.parametrize(("changed", "reason"), WRONG.values(), ids=WRONG.keys())
def test_wrong_arguments_are_one_line(script, tmp_path, capsys, changed, reason):
    """Guards against a typing error that ends in a traceback, a page of usage, or a file."""
    status, line = fails(script, capsys, *arguments(tmp_path / "data", **changed))
    assert status == 2
    assert re.search(reason, line)
    assert not list(tmp_path.iterdir())


def test_missing_arguments_are_one_line(script, capsys):
    """Guards against a default in the place of a size that nobody chose."""
    status, line = fails(script, capsys, "--degree", "2")
    assert status == 2
    assert "required: --path-length, --n-values, --graphs, --output" in line


def test_output_must_be_a_file_in_a_folder(script, tmp_path, capsys):
    """Guards against a folder that --force replaces, and a mistyped path that ends in a traceback after the work is done."""
    for output, reason in ((tmp_path / "no" / "data", "existing folder"), (tmp_path, "not a regular file")):
        status, line = fails(script, capsys, *arguments(output, "--force"))
        assert status == 2
        assert reason in line
    assert not list(tmp_path.iterdir())


def test_parquet_without_pyarrow_names_the_remedy(script, tmp_path, capsys, monkeypatch):
    """Guards against an optional dependency that is needed at the start, or whose absence gives a traceback."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    status, line = fails(script, capsys, *arguments(tmp_path / "data", format="parquet"))
    assert status == 2
    assert "pip install 'pitfalls[parquet]'" in line
    assert not list(tmp_path.iterdir())
    make(script, tmp_path / "data")


# ---------------------------------------------------------------------- interruptions


def break_after_one_chunk(monkeypatch, error: BaseException) -> None:
    chunks = dataset_files._chunks

    def broken(*given):
        yield next(chunks(*given))
        raise error

    monkeypatch.setattr(dataset_files, "_chunks", broken)


@pytest.mark.parametrize("kind", ["official", "jsonl", "parquet"])
def test_an_interrupted_run_leaves_the_old_files(script, tmp_path, monkeypatch, kind):
    """Guards against half of a dataset that looks whole, and a --force that destroys the old one before there is a new one."""
    old = make(script, tmp_path / "data", format=kind)
    break_after_one_chunk(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        make(script, tmp_path / "data", "--force", format=kind, seed=4)
    assert (tmp_path / "data").read_bytes() == old
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "data.sha256"]


def test_a_full_disk_is_one_line(script, tmp_path, capsys, monkeypatch):
    """Guards against a traceback and half of a file on a full disk."""
    break_after_one_chunk(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    status, line = fails(script, capsys, *arguments(tmp_path / "data"))
    assert status == 1
    assert "No space left on device" in line
    assert not list(tmp_path.iterdir())


def test_a_terminated_run_leaves_nothing(tmp_path):
    """Guards against the partial file of a job that its scheduler stops."""
    command = [sys.executable, str(SCRIPT), *arguments(tmp_path / "data", graphs=10**9)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.iterdir()) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert list(tmp_path.iterdir())
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, err) == (130, "stopped\n")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------- help


def test_help_does_not_import_torch():
    """Guards against a --help that takes seconds."""
    program = (
        "import runpy, sys\n"
        "try: runpy.run_path(sys.argv[1], run_name='__main__')\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", program, str(SCRIPT), "--help"], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert "--targets-per-graph" in result.stdout


def test_the_commands_of_the_docstring_are_right(script):
    """Guards against an example in the documentation with an option that no longer exists."""
    commands = re.findall(r"python scripts/make_data\.py ((?:.*\\\n)*.*)", script.__doc__)
    assert len(commands) == 2
    for command in commands:
        options = script.parser().parse_args(shlex.split(command.replace("\\\n", "")))
        PathStar(options.degree, options.path_length, options.n_values)
