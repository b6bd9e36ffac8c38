"""Reading of files of ``conf/`` whose entries have names, as structs. An error names the file, the entry and the place."""

from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from pitfalls.schemas import ConfigError, printable

T = TypeVar("T")


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file as dicts, lists, texts and numbers.

    Raises:
        ConfigError: there is no such file, it cannot be read, or it is no YAML. The message names the line. A key that stands
            twice in a mapping is refused too, because YAML would keep the last one without a word.
    """
    try:
        return yaml.load(path.read_text(), _Loader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give the path of a YAML file") from None
    except OSError as error:
        raise ConfigError(f"{path}: it cannot be read ({error.strerror}); give another file") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:  # ValueError: a date such as 2026-13-01
        raise ConfigError(f"{path.name}: {_one_line(error)}; mend the file") from None


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, without keys that stand twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for i, key in enumerate(names):
            if key.value in {earlier.value for earlier in names[:i]}:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value} stands twice", key.start_mark)
        return super().construct_mapping(node, deep)


def convert_entries(source: str, data: Any, of_type: type[T]) -> dict[str, T]:
    """Return the entries of a mapping as structs, by name.

    Args:
        source: the file or entry that holds the mapping, for messages.
        data: the content as `read_yaml` returns it.
        of_type: the type of each entry.

    Raises:
        ConfigError: the data are no mapping, or an entry is wrong. The message names the entry, which msgspec's own does not.
    """
    entries = convert(source, data, dict[str, Any])
    return {name: convert(f"{source}: {name}", entry, of_type) for name, entry in entries.items()}


def convert(source: str, data: Any, of_type: type[T]) -> T:
    """Return data as an object of a type.

    Raises:
        ConfigError: the data are not of the type. The message begins with ``source``.
    """
    try:
        return msgspec.convert(data, of_type)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ConfigError(f"{source}: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    return printable(str(error))
