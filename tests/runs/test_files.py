"""Files of a run are read as if a stranger had sent them."""

import os
import socket
from pathlib import Path
from typing import TypedDict

import msgspec
import pytest

from pitfalls.runs import files
from pitfalls.runs.files import FileError, check_plain, decode, read_bytes, read_json, write_bytes, write_json
from pitfalls.training.checkpoint import Progress


class Pair(TypedDict):
    k: int
    n: int


def test_a_plain_file_is_read(tmp_path: Path):
    (tmp_path / "a").write_bytes(b'{"k": 1, "n": 2}')
    assert read_bytes(tmp_path / "a") == b'{"k": 1, "n": 2}'
    assert read_json(tmp_path / "a", Pair) == {"k": 1, "n": 2}
    check_plain(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "b")


def link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def plug(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("make", [link, os.mkfifo, Path.mkdir, plug])
def test_what_is_no_plain_file_is_refused_at_once(tmp_path: Path, monkeypatch, make):
    """Guards against a pipe that waits for a writer for ever, and a link that shows what is outside."""
    monkeypatch.chdir(tmp_path)  # the name of a socket has to be short
    make(Path("x"))
    with pytest.raises(
        FileError, match="x: a (link or a socket|pipe, a device or a folder; only plain files are read, put|link).* there"
    ):
        read_bytes(Path("x"))
    with pytest.raises(FileError, match="x: a link, a pipe or a folder; only plain files are read, copy the file itself there"):
        check_plain(Path("x"))


def test_a_link_on_the_way_leads_nowhere(tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.json").write_text("{}")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileError, match="it leads out of .*; a run is read from its own folder alone, copy the files there"):
        read_bytes(tmp_path / "run" / "checkpoint" / "a.json", inside=tmp_path / "run")


def test_a_runs_folder_may_itself_be_linked(tmp_path: Path):
    """Guards against users who keep runs/ on another disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a").write_text("x")
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    assert read_bytes(tmp_path / "runs" / "a", inside=tmp_path / "runs") == b"x"


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(files.MAX_BYTES + 1)
    with pytest.raises(FileError, match="16,777,217 bytes, and such a file has 16,777,216 at most"):
        read_bytes(tmp_path / "large")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1, 2]",
        '{"k": 1, "n": 2, "x": "\udc80"}',
        '{"k": 1}',
        '{"k": NaN, "n": 1}',
        '{"k": 1e999, "n": 1}',
        '{"k": 1.5, "n": 1}',
        '{"k": true, "n": 1}',
        '{"k": ' + "9" * 5000 + ', "n": 1}',
        '{"k":' * 5000,
        "[" * 100_000,
        "\ufeff{}",
    ],
)
def test_json_of_another_kind_is_refused(tmp_path: Path, text: str):
    (tmp_path / "a").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(FileError, match="/a: "):
        read_json(tmp_path / "a", Pair)


def test_an_unknown_field_with_a_line_break_is_told_in_one_line():
    class Strict(msgspec.Struct, forbid_unknown_fields=True):
        k: int

    with pytest.raises(FileError, match="^a.json: Object contains unknown field `a b`$"):
        decode(b'{"k": 1, "a\\nb": 2}', Strict, "a.json")


def test_half_written_files_do_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a").write_bytes(b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(tmp_path / "a", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_what_its_own_reader_would_refuse_is_not_written(tmp_path: Path):
    """Guards against a file that takes the place of a good one and that no reader accepts: structs check nothing when made."""
    path = tmp_path / "state.json"
    write_json(path, Progress(step=3))
    for wrong in (Progress(step=-1), Progress(step=2**60), Progress(wall_s=float("inf")), Progress(step="3")):
        with pytest.raises(ValueError, match=r"Expected|JSON"):
            write_json(path, wrong)
        assert read_json(path, Progress) == Progress(step=3)
