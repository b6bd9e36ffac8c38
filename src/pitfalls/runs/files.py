"""Small files of a run. They are read as if a stranger had sent them, and a crash never leaves one half-written.

Only regular files are read: no link, pipe or device. So nothing outside of a run's folder is shown, and nothing hangs. Their
size is bounded. JSON is strict: no NaN, no number out of range, and only the type that the reader names.
"""

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from pitfalls.schemas import PitfallsError, printable

MAX_BYTES = 16 * 2**20
"""The largest JSON or YAML file that is read: a hundred times the largest that a run writes."""

T = TypeVar("T")


class FileError(PitfallsError, ValueError):
    """A file that cannot be used: it is damaged, too large, or of another type than expected."""


def read_bytes(path: Path, *, inside: Path | None = None, limit: int = MAX_BYTES) -> bytes:
    """Return the content of a regular file.

    Args:
        path: the file.
        inside: a folder that no link in the path may lead out of, by default the file's own folder.
        limit: the largest size in bytes.

    Raises:
        FileNotFoundError: there is none.
        FileError: it is a link, a pipe or a device, is outside of ``inside``, or is too large.
    """
    _check_place(path, inside)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe would wait for its writer
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO):
            raise FileError(f"{path}: a link or a socket; only plain files are read, copy the file itself there") from None
        raise
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise FileError(f"{path}: a pipe, a device or a folder; only plain files are read, put the file itself there")
    with os.fdopen(handle, "rb") as file:
        if status.st_size > limit:
            raise FileError(
                f"{path}: {status.st_size:,} bytes, and such a file has {limit:,} at most; "
                f"nothing was read, put the right file there"
            )
        return file.read(limit)


def check_plain(path: Path, *, inside: Path | None = None) -> None:
    """Raise an error if a path is no regular file, without reading it.

    Raises:
        FileNotFoundError, FileError: as `read_bytes`.
    """
    _check_place(path, inside)
    if not stat.S_ISREG(path.lstat().st_mode):
        raise FileError(f"{path}: a link, a pipe or a folder; only plain files are read, copy the file itself there")


def _check_place(path: Path, inside: Path | None) -> None:
    if inside is not None and not path.parent.resolve().is_relative_to(inside.resolve()):
        raise FileError(f"{path}: it leads out of {inside}; a run is read from its own folder alone, copy the files there")


def decode(data: bytes, of_type: type[T], source: object) -> T:
    """Return strict JSON as an object of a type.

    Raises:
        FileError: it is not. The message names ``source`` and the place of the error.
    """
    try:
        return msgspec.json.decode(data.decode(), type=of_type)  # msgspec looks for bad UTF-8 only where a key is known
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, UnicodeDecodeError) as error:
        raise FileError(f"{source}: {printable(str(error), 300)}") from None  # a field's name may have megabytes


def read_json(path: Path, of_type: type[T], *, inside: Path | None = None, limit: int = MAX_BYTES) -> T:
    """Return a JSON file as an object of a type.

    Raises:
        FileNotFoundError, FileError: see `read_bytes` and `decode`.
    """
    return decode(read_bytes(path, inside=inside, limit=limit), of_type, path)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically: a reader sees the old file or the whole new one, also after a crash.

    Raises:
        OSError: it cannot be written, for example on a full disk. The old file is still there.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def remove_half_written(folder: Path, names: Iterable[str]) -> None:
    """Remove what `write_bytes` left of the named files of a folder when its process was killed."""
    for name in names:
        for leftover in folder.glob(f".{name}.*"):
            leftover.unlink()


def write_json(path: Path, data: Any) -> None:
    """Write dicts, lists or structs as JSON, atomically as `write_bytes` does.

    Raises:
        ValueError: the data hold a NaN or an infinity, or a struct that its own reader would refuse. Nothing was written.
    """
    plain = msgspec.to_builtins(data)
    text = json.dumps(plain, indent=1, allow_nan=False)
    if isinstance(data, msgspec.Struct):
        msgspec.convert(plain, type(data), str_keys=True)
    write_bytes(path, text.encode() + b"\n")
