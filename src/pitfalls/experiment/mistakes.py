"""Mistakes in presets and on the command line, each in one line: the value, its place and the remedy.

Hydra, omegaconf and PyYAML describe a mistake in several lines, in their own terms. `explain` says the same in ours.
"""

import difflib
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pitfalls.runs.run_folder import flatten

MAX_LISTED = 20
"""Largest number of keys that a message lists."""
FREE = "model.sizes"
"""The group whose keys are those of a class of transformers. A preset lists only some of them."""
KINDS = {"Float": "a number, such as 3e-4", "Integer": "a whole number", "bool": "true or false", "String": "a text"}
"""Types of values in omegaconf's messages, in our words."""
FROM_LIBRARIES = ("hydra.", "omegaconf.")
"""Prefixes of the modules whose ValueErrors are about a preset or an override."""


def explain(
    error: BaseException,
    conf: Path,
    overrides: Sequence[str],
    chosen: Callable[[], Mapping[str, Any]],
    own: Path | None = None,
) -> str | None:
    """Return one line about a mistake in a preset or an override, or None if the error is none.

    Args:
        error: an error of hydra, omegaconf or PyYAML.
        conf: the folder of presets.
        overrides: the command line.
        chosen: returns the config that the presets alone make, without changes of keys. It is called if a key is unknown.
        own: the user's own folder of presets (``--config-dir``), if there is one.
    """
    if isinstance(error, yaml.YAMLError | UnicodeDecodeError):
        return _unreadable(error, conf, own)
    if (missing := getattr(error, "missing_cfg_file", None)) is not None:
        return _missing_preset(str(missing), str(error), conf, overrides, own)
    if (override := getattr(error, "override", None)) is not None:
        return _malformed(override, chosen)
    return _wrong_key_or_value(error, conf, overrides, chosen, own)


def key_remedy(unknown: str, config: Mapping[str, Any]) -> str:
    """Return what to write instead of a key that does not exist.

    Args:
        unknown: the dotted key.
        config: the config that has no such key, nested as in ``resolved_config.json``. Its ``NAME.name`` are the chosen presets.
    """
    values = dict(flatten(dict(config)))
    keys = list(dict.fromkeys([*(key for key in config), *values]))
    group, _, last = unknown.rpartition(".")
    siblings = {key.rpartition(".")[2]: key for key in keys if key.rpartition(".")[0] == group}
    near = [siblings[name] for name in difflib.get_close_matches(last, siblings, n=1)]
    if group == FREE and not near:
        return f"write +{unknown}=VALUE to add a key of transformers' config class"
    near = near or [key for key in keys if re.split(r"[._]", key)[-1] == last or key.endswith(f".{last}")]
    if near:
        return f"did you mean {near[0]}?"
    if group and siblings and len(siblings) <= MAX_LISTED:
        name = values.get(f"{group}.name")
        return f"{group}{f'={name}' if name else ''} has {', '.join(siblings)}"
    return "--help lists all keys"


def wrong_value(key: str, text: str, given: str | None = None) -> str:
    """Return one line about a value of the wrong type.

    Args:
        key: the dotted key.
        text: the message of omegaconf.
        given: the value, if the command line has it.
    """
    first = text.strip().splitlines()[0]
    if found := re.match(r"Value '(.*)' of type '.*' could not be converted to (\w+)", first):
        return f"{key}={found[1][:60]}: it must be {KINDS.get(found[2], found[2])}"
    if found := re.match(r"Value '(.*)' is not a valid (\w+)", first):
        return f"{key}={found[1][:60]}: it must be {KINDS.get(found[2], found[2])}"
    if found := re.match(r"Cannot convert '\w+' to string: '(.*)'", first):
        return f"{key}={found[1][:60]}: it must be a text"
    if "is not Optional" in first:
        return f"{key}=null: it needs a value"
    if found := re.match(r"Cannot assign (\w+) to Dict", first):
        return f"{key}: it must be a mapping of keys to values, not {found[1]}; write {key}.KEY=VALUE"
    if "is not a ListConfig" in first:
        return f"{key}: it must be a list; write {key}=[a,b]" if given is None else _no_list(key, given)
    if found := re.search(r"is not a subclass of (\w+)Config. value: (.*)", first):
        return f"{key or found[1].lower()}={found[2]}: a group holds keys, or is the name of a preset under `defaults:`"
    if "nterpolation" in first:
        return f"{key}: {first}; write the value itself"
    return f"{key}: {first}"


def _no_list(key: str, given: str) -> str:
    """Return one line about a text where a list is needed."""
    return f"{key}={given}: it must be a list; write {key}=[{given}]"


def _given(key: str, overrides: Sequence[str]) -> str | None:
    """Return the value that the command line has for a key, or None."""
    values = [value for name, equals, value in (text.partition("=") for text in overrides) if equals and name.lstrip("+") == key]
    return values[-1] if values else None


# ------------------------------------------------------------------ each kind of mistake


def _shown(path: Path, conf: Path) -> str:
    return str(path.relative_to(conf.parent) if path.is_relative_to(conf.parent) else path)


def _unreadable(error: yaml.YAMLError | UnicodeDecodeError, conf: Path, own: Path | None) -> str | None:
    """Return the file and the line at which a preset cannot be read, or None if no preset is to blame."""
    if isinstance(error, UnicodeDecodeError):
        for path in (path for folder in (conf, own) if folder for path in sorted(folder.rglob("*.yaml"))):
            data = path.read_bytes()
            try:
                data.decode()
            except UnicodeDecodeError as found:
                line = data[: found.start].count(b"\n") + 1
                return f"{_shown(path, conf)} line {line}: not UTF-8; save the file as UTF-8"
        return None
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    name = mark.name if mark else getattr(error, "name", None)
    if name is None or not Path(name).is_file():
        return None
    if mark:
        line, problem = mark.line + 1, getattr(error, "problem", None) or getattr(error, "context", None)
    else:  # a character that YAML forbids
        line, problem = Path(name).read_text()[: getattr(error, "position", 0)].count("\n") + 1, getattr(error, "reason", "")
    return f"{_shown(Path(name), conf)} line {line}: {problem}; the file is not YAML, mend that line"


def presets_of(group: str, *folders: Path | None) -> list[str]:
    """Return the names of a group's presets in some folders, without .yaml."""
    found = [path.relative_to(folder / group) for folder in folders if folder for path in (folder / group).rglob("*.yaml")]
    return sorted(path.with_suffix("").as_posix() for path in found)


def _missing_preset(missing: str, text: str, conf: Path, overrides: Sequence[str], own: Path | None) -> str:
    if "Could not load" in text:  # a preset of ours has it in its defaults, such as the launcher of a plugin
        return f"{text.splitlines()[0]} It is not installed; the first line of that file says how"
    group, _, name = missing.rpartition("/") if missing.startswith("hydra/") else missing.partition("/")
    if "/" not in missing:
        return f"--config-name {missing}: no such file in {conf}; leave --config-name out"
    presets = presets_of(group, conf, own)
    start = f"{group}={name}: no such preset"
    if not any(override.lstrip("+").startswith(f"{group}={name}") for override in overrides):
        start = f"{_naming(name, conf, own)}: {start}"
    if within := [preset for preset in presets if preset.startswith(f"{name}/")]:
        return f"{start}, but a folder; choose one of {', '.join(within)}"
    same_end = [preset for preset in presets if preset.endswith(f"/{name}")]
    if near := same_end or difflib.get_close_matches(name, presets, n=3):
        return f"{start}; did you mean {' or '.join(near)}? --help lists all"
    return f"{start}; choose one of {', '.join(presets)}"


def _file_of(preset: str, conf: Path, own: Path | None) -> Path:
    """Return the file of a preset such as ``experiment/mine``. The presets of the package win over the user's own."""
    path = conf / f"{preset}.yaml"
    return path if own is None or path.exists() else own / f"{preset}.yaml"


def _naming(preset: str, conf: Path, own: Path | None) -> str:
    """Return the file that names a preset in its defaults."""
    for path in (path for folder in (conf, own) if folder for path in sorted(folder.rglob("*.yaml"))):
        if re.search(rf":\s*{re.escape(preset)}([\s,\]}}]|$)", path.read_text(errors="replace")):
            return _shown(path, conf)
    return "in a preset"


def _malformed(override: str, chosen: Callable[[], Mapping[str, Any]]) -> str:
    if "=" not in override and not override.startswith("~"):
        config = chosen()
        known = override in config or override in dict(flatten(dict(config)))
        return f"{override}: it has no value; " + (f"write {override}=VALUE" if known else key_remedy(override, config))
    key, _, value = override.partition("=")
    if not re.fullmatch(r"[+~]{0,2}[\w@./-]+", key):
        return f"{override}: not a key and its value; write KEY=VALUE, and GROUP=PRESET for a preset"
    if value[:1] in "[{" or "'" in value:
        remedy = f'"{key}=[a,b]" for a list, "{key}=\'a b\'" for a text'
    else:
        plain = not re.search(r'["$`\\!]', value)
        remedy = f"\"{key}='{value}'\"" if plain else shlex.quote(f"{key}='{value}'")
    return f"{override}: hydra's grammar cannot read this value; write {remedy}, with the quotes"


def _wrong_key_or_value(
    error: BaseException, conf: Path, overrides: Sequence[str], chosen: Callable[[], Mapping[str, Any]], own: Path | None
) -> str | None:
    lines = [line.strip() for cause in _causes(error) for line in str(cause).splitlines() if line.strip()]
    keys = [line.removeprefix("full_key:").strip() for line in lines if line.startswith("full_key:")]
    place = re.match(r"In '([^']+)': (\w+) raised while composing config", lines[0]) if lines else None
    where = f"{_shown(_file_of(place[1], conf, own), conf)}: " if place else ""
    if keys and keys[0] == "experiment" and place and place[1].startswith("experiment/"):
        return f"{where}its first line must be `# @package _global_`, and then keys of the config"
    for line in lines:
        if keys and re.match(r"Key '.*' (not in|is not in)", line):
            return f"{where}{keys[0]}: there is no such key; {key_remedy(keys[0], chosen())}"
    if keys:
        text = next((line for line in lines[1:] if not line.startswith(("To append", "full_key:", "object_type="))), lines[0])
        return where + wrong_value(keys[0], text, None if where else _given(keys[0], overrides))
    return _wrong_line(lines[0] if lines else type(error).__name__, error, conf, overrides, chosen)


def _wrong_line(
    text: str, error: BaseException, conf: Path, overrides: Sequence[str], chosen: Callable[[], Mapping[str, Any]]
) -> str | None:
    """Return one line about a mistake whose message names no key of the config."""
    if found := re.match(r"Could not delete from config. '(.*)' does not exist", text):
        return f"~{found[1]}: there is no such key; {key_remedy(found[1], chosen())}"
    if found := re.match(r"Ambiguous value for argument '(.*)'", text):
        key, given = found[1].partition("=")[0], _given(found[1].partition("=")[0], overrides)
        if given is not None and isinstance(dict(flatten(dict(chosen()))).get(key), list):
            return _no_list(key, given)
        return f"{found[1]}: several values are a sweep; add -m"
    if text.startswith("Only one of"):
        return f"{text}; leave out all but one"
    if isinstance(error, ValueError) and not _raised_by_a_library(error):
        return None
    if "Config group override must be" in text:
        if nameless := [override for override in overrides if override.startswith("=")]:
            return _malformed(nameless[0], chosen)
        wrong = next((o for o in overrides if (conf / o.partition("=")[0]).is_dir()), "the command line")
        return f"{wrong}: a group takes the name of a preset; write GROUP=PRESET, or leave it out (--help lists all)"
    return text


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _raised_by_a_library(error: BaseException) -> bool:
    """Whether hydra or omegaconf itself raised an error. They have ValueErrors for malformed presets."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).startswith(FROM_LIBRARIES)
