"""What a file of graphs may be packed in, and what a file of another kind is called."""

import bz2
import gzip
import io
import lzma
import os
import re
import tarfile
import threading
import zipfile

import pytest
import torch

from pitfalls.runs.files import FileError
from pitfalls.tasks.dataset_files import write_dataset
from pitfalls.tasks.graph_files import kind_of
from pitfalls.tasks.official_format import OfficialFormatError, infer_n_values, infer_shape, read_batches, write_lines
from pitfalls.tasks.path_star import PathStar

TASK = PathStar(2, 3, 10)
TEXT = write_lines(TASK, TASK.sample(300, torch.Generator().manual_seed(0)))
MARK = b"\xef\xbb\xbf"


def packed(name: str) -> bytes:
    """Return ``TEXT`` in an archive of the named kind."""
    made = io.BytesIO()
    if name == "zip":
        with zipfile.ZipFile(made, "w") as archive:
            archive.writestr("graphs.txt", TEXT)
    else:
        with tarfile.open(fileobj=made, mode="w") as archive:
            entry = tarfile.TarInfo("graphs.txt")
            entry.size = len(TEXT)
            archive.addfile(entry, io.BytesIO(TEXT))
    return made.getvalue()


def numbers(path, n_values=10, **options):
    return [(b.prompt.tolist(), b.target.tolist()) for b in read_batches(path, n_values, **options)]


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(TEXT),
        gzip.compress(TEXT[:500]) + gzip.compress(TEXT[500:]),
        MARK + TEXT,
        MARK + TEXT.replace(b"\n", b"\r\n"),
        gzip.compress(MARK + TEXT),
    ],
    ids=["gzip", "gzip of two members", "BOM", "BOM and CRLF", "BOM in gzip"],
)
@pytest.mark.parametrize("name", ["graphs.txt", "graphs.txt.gz"])
def test_what_is_packed_or_marked_is_read_as_the_plain_file(tmp_path, data, name):
    """Guards against ``byte b'\\x1f' at column 1``, and against a packed file judged by its name."""
    (tmp_path / "plain").write_bytes(TEXT)
    path = tmp_path / name
    path.write_bytes(data)
    assert infer_shape(path) == (2, 3)
    assert infer_n_values(path) == infer_n_values(tmp_path / "plain")
    assert numbers(path, chunk_lines=70) == numbers(tmp_path / "plain", chunk_lines=70)


def test_a_pipe_of_packed_lines_is_read(tmp_path):
    """Guards against a look at the first bytes that takes them from the pipe."""
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(gzip.compress(TEXT),))
    writer.start()
    assert sum(len(batch.prompt) for batch in read_batches(tmp_path / "pipe", 10)) == 300
    writer.join()


@pytest.mark.parametrize(
    "data",
    [gzip.compress(TEXT)[:-300], gzip.compress(TEXT)[:5], gzip.compress(TEXT)[:-8] + b"12345678", gzip.compress(TEXT) + b"junk"],
    ids=["cut off", "nothing in it", "wrong checksum", "other data behind it"],
)
def test_damaged_gzip_data_are_told_in_one_line(tmp_path, data):
    """Guards against EOFError, zlib.error and BadGzipFile, which end in a traceback, and part of a file read as a whole."""
    path = tmp_path / "graphs.txt.gz"
    path.write_bytes(data)
    with pytest.raises(FileError, match=f"^{re.escape(str(path))}: its gzip data are damaged or end too early"):
        numbers(path)


KINDS = {
    "two layers of gzip": (gzip.compress(TEXT), "gzip data inside of gzip data; unpack it first"),
    "zip": (packed("zip"), "a zip archive; unpack it first"),
    "tar": (packed("tar"), "a tar archive; unpack it first"),
    "bzip2": (bz2.compress(TEXT), "bzip2 data; unpack it first"),
    "xz": (lzma.compress(TEXT), "xz data; unpack it first"),
    "zstd": (b"\x28\xb5\x2f\xfd\x04\x58\xc1\x01", "Zstandard data; unpack it first"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", "a Git LFS pointer, not the file itself; "),
    "annex": (b"/annex/objects/SHA256E-s4--0\n", "a git-annex pointer"),
    "UTF-16": (TEXT.decode().encode("utf-16"), "a UTF-16 text; save it as UTF-8"),
    "UTF-16, big end first": (b"\xfe\xff" + TEXT.decode().encode("utf-16-be"), "a UTF-16 text; save it as UTF-8"),
    "UTF-16 without a mark": (TEXT.decode().encode("utf-16-le"), "a UTF-16 text; save it as UTF-8"),
    "UTF-16-BE without a mark": (TEXT.decode().encode("utf-16-be"), "a UTF-16 text; save it as UTF-8"),
    "UTF-32": (TEXT.decode().encode("utf-32"), "a UTF-32 text; save it as UTF-8: iconv -f UTF-32"),
    "JSON lines": (b'{"edges": [[1, 2]], "start": 1, "goal": 2, "path": [1, 2]}\n', "JSON lines; scripts/make_data.py"),
    "JSON": (b'[{"edges": []}]', "a JSON file"),
    "HTML": (b"<!DOCTYPE html>\n<title>404</title>", "an HTML or XML page; a download that failed"),
    "CSV": (b"edges,start,goal,path\n", "a table with a header"),
    "checksum": (b"ab" * 32 + b"  g2_5.txt\n", "a list of checksums; give the file of graphs beside it"),
    "CR": (TEXT.replace(b"\n", b"\r"), "a text whose lines end in CR alone"),
    "NUL bytes": (bytes(4096), "a binary file"),
    "torch or pickle": (b"\x80\x04\x95\x0b\0\0\0", "a binary file"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "said"), KINDS.values(), ids=KINDS.keys())
def test_another_kind_of_file_is_named(tmp_path, data, said):
    """Guards against ``byte b'P' at column 1``, which does not say that the file is a zip archive."""
    path = tmp_path / "graphs.txt"
    path.write_bytes(gzip.compress(data) if said.startswith("gzip") else data)
    for read in (infer_shape, infer_n_values, numbers):
        with pytest.raises(OfficialFormatError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}:1: the file is {said}")
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
def test_our_own_other_formats_are_named(tmp_path, file_format):
    if file_format == "parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / "data"
    write_dataset(path, TASK, 5, seed=0, targets_per_graph=1, file_format=file_format, replace=False)
    with pytest.raises(OfficialFormatError, match="scripts/make_data.py --format official writes the lines"):
        infer_shape(path)
    with pytest.raises(OfficialFormatError, match="a list of checksums"):
        infer_shape(tmp_path / "data.sha256")


def test_a_mark_between_joined_files_is_named(tmp_path):
    """``cat`` of two files from Windows: only the first mark is at the start of the file."""
    path = tmp_path / "graphs.txt"
    path.write_bytes(2 * (MARK + TEXT))
    with pytest.raises(OfficialFormatError, match=":301: a byte-order mark, which only the start of a file may have"):
        numbers(path)


@pytest.mark.parametrize("start", [TEXT, b"", b"1,2|x", b" 1,2|3,4", b"1,2|3,4\0"])
def test_a_line_with_a_mistake_is_no_other_kind_of_file(start):
    """Guards against a guess in the place of the column at which a line is wrong."""
    assert kind_of(start) is None
