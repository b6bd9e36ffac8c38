"""Typed configs: from what hydra composed, from a run folder (read as data, nothing is composed), resolved, and written."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from pitfalls.runs import run_folder
from pitfalls.runs.files import read_bytes, write_bytes
from pitfalls.schemas import MODEL_SCHEMAS, Config, ConfigError, MambaModelConfig

ROOT = Path(__file__).resolve().parents[3]
CONF = ROOT / "conf"
MAX_CONFIG_BYTES = 2**18
MAX_DEPTH = 8
"""Of a config: groups, keys, lists."""


def typed(data: DictConfig) -> Config:
    """The typed, range-checked config of an omegaconf tree.

    Raises:
        ConfigError: a key is not one of ours, a value is missing, of the wrong type, out of range, or does not go with
            another one.
    """
    try:
        plain = OmegaConf.to_container(data, resolve=True)  # omegaconf lets ``+key=value`` into a tree, and a merge would keep it
        data = cast(DictConfig, OmegaConf.merge(_schema(data), OmegaConf.create(plain)))
    except (ConfigKeyError, ConfigAttributeError) as error:
        raise ConfigError(
            f"{error.full_key}: there is no such key (a + in front of a key does not make one); see --cfg job"
        ) from None
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}") from None
    missing = sorted(OmegaConf.missing_keys(data))
    if missing:
        raise ConfigError(f"{missing[0]} has no value; set it on the command line or in a preset under conf/")
    config = OmegaConf.to_object(data)
    assert isinstance(config, Config)
    return config


def _schema(data: DictConfig) -> DictConfig:
    """The types of all keys, with those of the model and of the objective that the data names."""
    from pitfalls.objectives import objective_class

    schema = OmegaConf.structured(Config)
    architecture = str(OmegaConf.select(data, "model.architecture"))
    if architecture not in MODEL_SCHEMAS:
        raise ConfigError(f"model.architecture={architecture}: choose one of {', '.join(MODEL_SCHEMAS)}")
    schema.model = OmegaConf.structured(MODEL_SCHEMAS[architecture])
    try:
        schema.objective = OmegaConf.structured(objective_class(str(OmegaConf.select(data, "objective.name"))).Config)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return schema


def load_config(run_dir: Path) -> Config:
    """The config of a run folder, read as data: types and ranges are checked, nothing is composed.

    Raises:
        ConfigError: there is none, or it is not a config of this version.
    """
    path = run_dir / run_folder.CONFIG
    try:
        text = read_bytes(path, limit=MAX_CONFIG_BYTES).decode()
        _refuse_tricks(text)
        data = OmegaConf.create(text)
        if not isinstance(data, DictConfig):  # an empty file
            raise ConfigError("not a mapping of keys to values")
        return typed(data)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; {run_dir} is not the folder of a run") from None
    except (OmegaConfBaseException, ValueError, TypeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())[:300]}") from None


def _refuse_tricks(text: str) -> None:
    """Refuse what no config of ours has and what costs or shows more than it says: aliases, interpolations, deep nesting.

    Raises:
        ValueError: names the line.
    """
    if "${" in text:
        raise ValueError("an interpolation (${...}) in the config of a run; it is resolved before it is written")
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if depth == 0 and isinstance(event, yaml.NodeEvent) and not isinstance(event, yaml.MappingStartEvent):
            raise ValueError("not a mapping of keys to values")
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"line {line}: an alias (*{event.anchor}); write the value itself")
        if (tag := getattr(event, "tag", None)) is not None:
            raise ValueError(f"line {line}: a tag ({tag}); a config has plain values only")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(f"line {line}: nested deeper than {MAX_DEPTH} levels")


def resolve(config: Config, *, on_this_machine: bool = True) -> Config:
    """The config with device and precision decided, as it is hashed and written.

    Args:
        config: as composed.
        on_this_machine: whether the device has to be here. A job for another machine keeps one that it names.

    Raises:
        ConfigError: the device is not there.
    """
    from pitfalls.training.device import resolve_device, resolve_precision

    if not on_this_machine and "auto" not in (config.training.device, config.training.precision):
        return config
    try:
        device = resolve_device(config.training.device)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    precision = resolve_precision(config.training.precision, device)
    if config.training.precision == "auto" and device.type == "cpu" and isinstance(config.model, MambaModelConfig):
        precision = "fp32"  # its recurrence runs in fp32 anyway, and the casts cost more than the products gain
    return replace(config, training=replace(config.training, device=device.type, precision=precision))


def run_dir_of(config: Config) -> Path:
    """The folder of a (resolved) config's run."""
    return Path(config.runs_dir) / run_folder.run_name(asdict(config))


def write_config(config: Config, path: Path) -> None:
    """Write a resolved config, as `load_config` reads it."""
    write_bytes(path, OmegaConf.to_yaml(OmegaConf.create(asdict(config))).encode())
