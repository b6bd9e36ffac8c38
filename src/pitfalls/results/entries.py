"""Files of ``conf/`` that hold entries by name, read as structs: an error names the file, the entry and the place."""

from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from pitfalls.schemas import ConfigError

T = TypeVar("T")


def read_yaml(path: Path) -> Any:
    """Return the plain data of a YAML file.

    Raises:
        ConfigError: it is no YAML; names the line.
    """
    try:
        return yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path.name}: {_one_line(error)}") from None


def convert_entries(source: str, data: Any, of_type: type[T]) -> dict[str, T]:
    """Return the entries of a mapping as structs, by name.

    Args:
        source: what the mapping belongs to, for messages.
        data: plain data.
        of_type: the type of each entry.

    Raises:
        ConfigError: it is no mapping, or an entry is wrong; msgspec alone would not name the entry.
    """
    entries = convert(source, data, dict[str, Any])
    return {name: convert(f"{source}: {name}", entry, of_type) for name, entry in entries.items()}


def convert(source: str, data: Any, of_type: type[T]) -> T:
    """Return plain data as a type.

    Raises:
        ConfigError: it is not of the type; one line that begins with ``source``.
    """
    try:
        return msgspec.convert(data, of_type)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
