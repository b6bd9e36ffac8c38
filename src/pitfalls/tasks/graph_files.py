"""Opening of a file of graphs. gzip and a byte-order mark are read. A file of another kind is named, with the remedy."""

import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from pitfalls.runs.files import FileError

GZIP, BYTE_ORDER_MARK = b"\x1f\x8b", b"\xef\xbb\xbf"
BUFFER_BYTES = 2**18
HEAD_BYTES = 512
"""Number of bytes at the start of a file that show its kind."""
UNPACK = "unpack it first"
SAVE_AS_UTF8 = "save it as UTF-8: iconv -f UTF-16 -t UTF-8 FILE"
AS_LINES = "scripts/make_data.py --format official writes the lines that are read here"
KINDS: tuple[tuple[bytes, str, str], ...] = (
    (GZIP, "gzip data inside of gzip data", UNPACK),
    (b"PK\x03\x04", "a zip archive", UNPACK),
    (b"PK\x05\x06", "an empty zip archive", "give a file of graphs"),
    (b"\xfd7zXZ\0", "xz data", UNPACK),
    (b"BZh", "bzip2 data", UNPACK),
    (b"\x28\xb5\x2f\xfd", "Zstandard data", UNPACK),
    (b"\x04\x22\x4d\x18", "LZ4 data", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (b"PAR1", "a Parquet file", AS_LINES),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch the file: git lfs pull"),
    (b"/annex/objects/", "a git-annex pointer, not the file itself", "fetch the file: git annex get"),
    (b"\xff\xfe\0\0", "a UTF-32 text", SAVE_AS_UTF8.replace("16", "32")),
    (b"\0\0\xfe\xff", "a UTF-32 text", SAVE_AS_UTF8.replace("16", "32")),
    (b"\xff\xfe", "a UTF-16 text", SAVE_AS_UTF8),
    (b"\xfe\xff", "a UTF-16 text", SAVE_AS_UTF8),
)
"""First bytes of files that are not read here, with the kind and the remedy."""
PATTERNS: tuple[tuple[bytes, str, str], ...] = (
    (rb"\s*\{", "JSON lines", AS_LINES),
    (rb"\s*\[", "a JSON file", AS_LINES),
    (rb"\s*<", "an HTML or XML page", "a download that failed leaves such a page; fetch the file again"),
    (rb"[0-9a-fA-F]{32,128} [ *]", "a list of checksums", "give the file of graphs beside it"),
    (rb"(?s).{257}ustar", "a tar archive", UNPACK),
    (rb"(\d\0[\d,|/=]\0)+", "a UTF-16 text", SAVE_AS_UTF8),
    (rb"(\0\d\0[\d,|/=])+", "a UTF-16 text", SAVE_AS_UTF8),
    (rb"(?s)\D.*[\0-\x08\x0e-\x1f]", "a binary file", AS_LINES),
    (rb"[\d,|/=]+\r\d", "a text whose lines end in CR alone", "end them in LF: tr '\\r' '\\n' < FILE"),
    (rb"[\w\"' -]*[A-Za-z_][\w\"' -]*[,;\t]", "a table with a header, such as CSV", AS_LINES),
)
"""Patterns of the start of other files, for which no fixed bytes stand. The first that fits is taken."""


@contextmanager
def open_graphs(path: Path | str) -> Iterator[IO[bytes]]:
    """Open a file of graphs for one reading from front to back, at its first line. It may be a pipe.

    gzip data are unpacked, whatever the file's name. A UTF-8 byte-order mark is skipped.

    Raises:
        FileError: the gzip data are damaged or end too early. This is found while they are read.
        OSError: the file cannot be opened.
    """
    with Path(path).open("rb", buffering=BUFFER_BYTES) as raw:
        if not _peek(raw).startswith(GZIP):
            yield _after_mark(raw)
            return
        try:
            with gzip.open(raw) as unpacked:
                yield _after_mark(cast(IO[bytes], unpacked))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise FileError(f"{path}: its gzip data are damaged or end too early ({error}); fetch or write it again") from None


def _peek(file: IO[bytes]) -> bytes:
    """Return the next bytes of a file without reading them."""
    return file.peek(HEAD_BYTES)  # type: ignore[attr-defined]  # both kinds of file have it


def _after_mark(file: IO[bytes]) -> IO[bytes]:
    """Return the file, behind its byte-order mark if it begins with one."""
    if _peek(file).startswith(BYTE_ORDER_MARK):
        file.read(len(BYTE_ORDER_MARK))
    return file


def kind_of(start: bytes) -> str | None:
    """Return what a file is that does not begin with a line of graphs, and the remedy, or None if its kind is unknown.

    Args:
        start: its first bytes. A few hundred are enough.
    """
    head = start[:HEAD_BYTES]
    for magic, kind, remedy in KINDS:
        if head.startswith(magic):
            return f"the file is {kind}; {remedy}"
    for pattern, kind, remedy in PATTERNS:
        if re.match(pattern, head):
            return f"the file is {kind}; {remedy}"
    return None
