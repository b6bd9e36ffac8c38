"""The config of a run. It is checked when composed, resolved once, written to the run's folder, and read back as data.

There is only one path from choices to a run. Hydra composes YAML (`pitfalls.experiment.hydra_app`), `typed` checks keys, types
and ranges, and `resolve` decides and checks everything else. The resolved config is hashed, written and trained.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from pitfalls.experiment.mistakes import key_remedy, wrong_value
from pitfalls.runs import run_folder
from pitfalls.runs.files import read_bytes, write_bytes
from pitfalls.schemas import MODEL_SCHEMAS, Config, ConfigError, MambaModelConfig, RecurrentModelConfig

_PACKAGE = Path(__file__).resolve().parents[1]
ROOT = _PACKAGE.parents[1]
"""The top folder of the checkout, if the package is used from one."""
CONF = ROOT / "conf" if (ROOT / "pyproject.toml").is_file() else _PACKAGE / "conf"
"""The folder of presets: ``conf/`` of the checkout, or its copy in an installed package (setup.py)."""
MAX_CONFIG_BYTES = 2**18
MAX_DEPTH = 8
"""Largest nesting of keys and lists in a config."""


def typed(data: DictConfig) -> Config:
    """Return an omegaconf tree as a config, with types and ranges checked.

    Raises:
        ConfigError: a key is not one of ours, or a value is missing, of the wrong type, out of range, or does not go with
            another value.
    """
    try:
        plain = OmegaConf.to_container(data, resolve=True)  # omegaconf lets ``+key=value`` into a tree, and a merge would keep it
        data = cast(DictConfig, OmegaConf.merge(_schema(data), OmegaConf.create(plain)))
    except (ConfigKeyError, ConfigAttributeError) as error:
        keys = cast(dict[str, Any], OmegaConf.to_container(_schema(data)))
        remedy = key_remedy(
            str(error.full_key), keys | {name: keys[name] | {"name": data[name].name} for name in ("model", "objective")}
        )
        raise ConfigError(f"{error.full_key}: there is no such key (a + in front of a key does not make one); {remedy}") from None
    except OmegaConfBaseException as error:
        raise ConfigError(wrong_value(str(error.full_key), str(error))) from None
    missing = sorted(OmegaConf.missing_keys(data))
    if missing:
        raise ConfigError(f"{missing[0]} has no value; set it on the command line or in a preset under conf/")
    config = OmegaConf.to_object(data)
    assert isinstance(config, Config)
    return config


def _schema(data: DictConfig) -> DictConfig:
    """Return the types of all keys, those of the named model and objective included."""
    from pitfalls.objectives import objective_class

    for group in ("model", "objective"):
        if isinstance(value := OmegaConf.select(data, group), str | int | float | list):
            raise ConfigError(
                f"{group}={value}: a file chooses a preset by `defaults: [override /{group}: NAME]`, or sets its keys"
            )
    schema = OmegaConf.structured(Config)
    architecture = str(OmegaConf.select(data, "model.architecture"))
    if architecture not in MODEL_SCHEMAS:
        raise ConfigError(f"model.architecture={architecture}: choose one of {', '.join(MODEL_SCHEMAS)}")
    schema.model = OmegaConf.structured(MODEL_SCHEMAS[architecture])
    schema.objective = OmegaConf.structured(objective_class(str(OmegaConf.select(data, "objective.name"))).Config)
    return schema


def load_config(run_dir: Path) -> Config:
    """Return the config of a run folder. Types and ranges are checked. Nothing is composed.

    Raises:
        ConfigError: there is no config, or it is not one of this version.
    """
    path = run_dir / run_folder.CONFIG
    try:
        text = read_bytes(path, limit=MAX_CONFIG_BYTES).decode()
        _refuse_tricks(text)
        data = OmegaConf.create(text)
        if not isinstance(data, DictConfig):  # an empty file
            raise ConfigError("not a mapping of keys to values")
        return typed(data)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{path}: no such file; {run_dir} is not the folder of a run, such as runs/NAME") from None
    except (OmegaConfBaseException, ValueError, TypeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())[:300]}") from None


def _refuse_tricks(text: str) -> None:
    """Refuse aliases, interpolations, tags and deep nesting. Our configs have none, and they can fill the memory or show secrets.

    Raises:
        ValueError: there is one. The message names the line.
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


def resolve(config: Config, *, trained_here: bool = True) -> Config:
    """Return the config to train: device and precision are decided, and everything that can be is checked beforehand.

    Args:
        config: a composed config with checked types and ranges.
        trained_here: whether this machine trains the run. A run for another machine keeps the device that it names.

    Raises:
        ConfigError: the device is not there, the graphs are too few, objective, model and task do not go together, the run
            to start from has not finished, or a tracker is not installed.
    """
    from pitfalls.objectives import check_objective, check_trunk
    from pitfalls.tasks.path_star import PathStar
    from pitfalls.tasks.splits import check_split
    from pitfalls.training.trackers import check_trackers

    if trained_here or "auto" in (config.training.device, config.training.precision):
        config = _with_device(config)
    task = PathStar(config.task.degree, config.task.path_length, config.task.n_values)
    check_objective(config.objective, task)
    check_trunk(config.objective, config.model.name, recurrent=isinstance(config.model, RecurrentModelConfig))
    check_split(task, train_graphs=config.task.train_graphs, test_graphs=config.task.test_graphs)
    start = config.model.init_from
    if start is not None and not run_folder.is_finished(Path(start)):
        raise ConfigError(f"model.init_from={start}: not the folder of a finished run")
    check_trackers(config.trackers)
    return config


def _with_device(config: Config) -> Config:
    from pitfalls.training.device import resolve_device, resolve_precision

    device = resolve_device(config.training.device)
    precision = resolve_precision(config.training.precision, device)
    if config.training.precision == "auto" and device.type == "cpu" and isinstance(config.model, MambaModelConfig):
        precision = "fp32"  # its recurrence runs in fp32 anyway, and the casts cost more than bf16 products save
    return replace(config, training=replace(config.training, device=device.type, precision=precision))


def run_dir_of(config: Config) -> Path:
    """Return the folder of a resolved config's run.

    Raises:
        ValueError: the config is not resolved, so its run has no name yet.
    """
    if "auto" in (config.training.device, config.training.precision):
        raise ValueError("the config is not resolved: device or precision is auto")
    return Path(config.runs_dir) / run_folder.run_name(asdict(config))


def write_config(config: Config, path: Path) -> None:
    """Write a resolved config, as `load_config` reads it."""
    write_bytes(path, OmegaConf.to_yaml(OmegaConf.create(asdict(config))).encode())
