"""The folder of a pretrained model, checked before a library reads it and before memory is asked for.

The folder may come from a stranger, and may be damaged. Its ``config.json`` decides how much memory a library asks for, so it is
compared with the headers of the weight files first.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pitfalls.models.smollm2 import converted_folder
from pitfalls.runs.files import FileError, decode
from pitfalls.schemas import SMOLLM2, ConfigError, PretrainedModelConfig

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
MAX_JSON_BYTES = 2**24
READ = (".json", ".safetensors", ".txt", ".model", ".jinja")
"""Endings of the files that make a model and its tokenizer."""
FLOATS = ("F64", "F32", "F16", "BF16")
NO_NUMBERS = ("BOOL", "I64", "I32")
"""Types of tensors that are counters or masks, never weights."""
KINDS_OF_FILE = {
    b"version https://git-lfs": "a Git LFS pointer, not the weights themselves: run `git lfs pull`",
    b"PK\x03\x04": "a zip archive, which is how torch.save pickles: write it with save_pretrained",
    b"\x80": "a pickle: write it with save_pretrained",
    b"GGUF": "a GGUF file: write it with save_pretrained",
    b"<": "a page of HTML or XML: download the file itself",
}
"""First bytes of files that are often found in place of safetensors, and what such a file is."""


def folder_of(config: PretrainedModelConfig) -> Path:
    """Return the folder with the files of a model. A model on the hub is downloaded to its local cache, or found there.

    Raises:
        ConfigError: there is none. A folder whose files have changed since the config was resolved is refused, too.
    """
    if config.source == SMOLLM2:
        return converted_folder()
    if config.is_local:
        folder = Path(config.source)
        for path in folder.iterdir():
            if path.suffix in READ and not path.is_file():  # a pipe would wait for its writer
                raise ConfigError(f"model.source={config.source}: {path.name} is no plain file; put the file itself there")
        if config.revision is not None and config.revision != digest(folder):
            raise ConfigError(
                f"model.source={config.source}: its files have changed since this run was started; "
                f"put the old ones back, or train a new run"
            )
        return folder
    from huggingface_hub import snapshot_download

    try:
        patterns = [f"*{ending}" for ending in READ]
        others = ["*/*", "consolidated*"]  # the same weights in other layouts
        found = snapshot_download(config.source, revision=config.revision, allow_patterns=patterns, ignore_patterns=others)
        return Path(found)
    except Exception as error:  # of the hub, of the network, of the cache
        raise ConfigError(
            f"model.source={config.source} at {config.revision}: {error}; give the id and commit of a causal LM on the hub (with "
            f"network access, or in its local cache) or a folder that save_pretrained wrote"
        ) from error


def with_digest(model: PretrainedModelConfig) -> PretrainedModelConfig:
    """Return a model's config with its identity: of a local folder, the absolute path and the digest of its files."""
    if not model.is_local:
        return model
    folder = Path(model.source).resolve()
    return replace(model, source=str(folder), revision=digest(folder))


def digest(folder: Path) -> str:
    """Return ``sha256:`` and 64 hex digits, made from the names and contents of a model's files."""
    files = sorted(path for path in folder.iterdir() if path.suffix in READ and path.is_file())
    whole = hashlib.sha256()
    for path in files:
        status = path.stat()
        whole.update(f"{path.name} {_file_digest(path, status.st_size, status.st_mtime_ns)}\n".encode())
    return f"sha256:{whole.hexdigest()}"


@lru_cache(maxsize=1024)  # every job of a sweep is resolved
def _file_digest(path: Path, size: int, changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_folder(folder: Path, source: str) -> int:
    """Check the config and the headers of the weights of a folder, and return how many weights there are.

    Args:
        folder: the folder with the model's files.
        source: what the user calls it, for messages.

    Raises:
        ConfigError: a file is missing, damaged, quantised or of another kind. The message names it.
    """
    try:
        _check_config(folder, source)
        files = list(_weight_files(folder, source))
        return sum(_count(path, source) for path in files)
    except FileError as error:
        raise ConfigError(f"model.source={source}: {error}") from None
    except OSError as error:
        name = Path(error.filename).name if error.filename else folder.name
        raise ConfigError(f"model.source={source}: {name}: {error.strerror}; give a folder that save_pretrained wrote") from None


def _read_json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_JSON_BYTES:
        raise FileError(
            f"{path.name} has {path.stat().st_size:,} bytes, and such a file has {MAX_JSON_BYTES:,} at most; download it again"
        )
    data = path.read_bytes()
    if (kind := _kind(data)) is not None:
        raise FileError(f"{path.name} is {kind}")
    try:
        return decode(data, dict[str, Any], path.name)
    except FileError as error:
        raise FileError(f"{error}; the file is damaged, download it again") from None


def _check_config(folder: Path, source: str) -> None:
    if (folder / "adapter_config.json").exists() and not (folder / CONFIG).exists():
        raise ConfigError(f"model.source={source}: an adapter without its model; merge the two and save the whole model")
    config = _read_json(folder / CONFIG)
    if (how := config.get("quantization_config", config.get("compression_config"))) is not None:
        method = how.get("quant_method", "an unknown method") if isinstance(how, dict) else how
        raise ConfigError(f"model.source={source}: its weights are quantised ({method}); take the model before it was quantised")
    if not isinstance(config.get("model_type"), str):
        raise ConfigError(f"model.source={source}: {CONFIG} names no model_type; give a folder that save_pretrained wrote")


def _weight_files(folder: Path, source: str) -> Iterator[Path]:
    if os.path.lexists(folder / WEIGHTS):
        yield folder / WEIGHTS
        return
    if not os.path.lexists(folder / INDEX):
        others = sorted(
            path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".h5", ".gguf", ".msgpack")
        )
        why = f"there is only {others[0]}, and weights are read from safetensors alone" if others else "no weights are there"
        raise ConfigError(f"model.source={source}: {why}; write {WEIGHTS} with save_pretrained")
    places = _read_json(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ConfigError(f"model.source={source}: {INDEX} has no weight_map; give a folder that save_pretrained wrote")
    for name in sorted({str(place) for place in places.values()}):
        if name != Path(name).name or not (folder / name).is_file():
            raise ConfigError(f"model.source={source}: {INDEX} names {name}, which is not in the folder; download all files")
        yield folder / name


def _count(path: Path, source: str) -> int:
    """Return the number of weights in a file, from its header."""
    from safetensors import SafetensorError, safe_open

    with path.open("rb") as file:
        start = file.read(64)
    if (kind := _kind(start)) is not None:
        raise FileError(f"{path.name} is {kind}")
    n = 0
    try:
        with safe_open(path, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dict
                part = tensors.get_slice(name)
                dtype, size = part.get_dtype(), 1
                for length in part.get_shape():
                    size *= length
                if dtype not in (*FLOATS, *NO_NUMBERS) or (dtype in NO_NUMBERS and name.endswith("weight")):
                    raise ConfigError(
                        f"model.source={source}: {name} in {path.name} has the type {dtype}; weights are "
                        f"{', '.join(FLOATS)}, so take the model before it was quantised"
                    )
                n += size
    except SafetensorError as error:
        raise FileError(f"{path.name} is damaged or cut off ({error}); download it again") from None
    return n


def _kind(start: bytes) -> str | None:
    """Return what a file is, told from its first bytes, or None if it may be what its name says."""
    if not start:
        return "empty: download it again"
    return next((kind for magic, kind in KINDS_OF_FILE.items() if start.startswith(magic)), None)
