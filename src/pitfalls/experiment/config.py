"""The config of a run. It is checked when composed, resolved once, written to the run's folder, and read back as data.

There is only one path from choices to a run. Hydra composes YAML (`pitfalls.experiment.hydra_app`), `typed` checks keys, types
and ranges, and `resolve` decides and checks everything else. The resolved config is hashed, written and trained.
"""

import json
import re
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, cast

import msgspec
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from pitfalls.experiment.mistakes import key_remedy, wrong_value
from pitfalls.runs import run_folder
from pitfalls.runs.counts import Name
from pitfalls.runs.files import FileError, decode, read_bytes, write_json
from pitfalls.runs.records import ConfigRecord
from pitfalls.schemas import (
    MODEL_SCHEMAS,
    CausalLMModelConfig,
    Config,
    ConfigError,
    MambaModelConfig,
    PretrainedModelConfig,
    RecurrentModelConfig,
    TaskConfig,
    TrainingConfig,
)

_PACKAGE = Path(__file__).resolve().parents[1]
ROOT = _PACKAGE.parents[1]
"""The top folder of the checkout, if the package is used from one."""
CONF = ROOT / "conf" if (ROOT / "pyproject.toml").is_file() else _PACKAGE / "conf"
"""The folder of presets: ``conf/`` of the checkout, or its copy in an installed package (pyproject.toml)."""
GROUPS = ("model", "objective", "optimizer")
"""Groups of presets whose keys depend on the named preset."""
MAX_CONFIG_BYTES = 2**18
"""Largest config of a run that is read, a hundred times the largest that is written."""


def typed(data: DictConfig) -> Config:
    """Return an omegaconf tree as a config, with types and ranges checked.

    Raises:
        ConfigError: a key is not one of ours, or a value is missing, of the wrong type, out of range, or does not go with
            another value.
    """
    try:
        plain = OmegaConf.to_container(data, resolve=True)  # omegaconf lets ``+key=value`` into a tree, and a merge would keep it
        data = cast(DictConfig, OmegaConf.merge(_schema(data), OmegaConf.create(escaped(plain))))
    except (ConfigKeyError, ConfigAttributeError) as error:
        keys = cast(dict[str, Any], OmegaConf.to_container(_schema(data)))
        remedy = key_remedy(str(error.full_key), keys | {name: keys[name] | {"name": data[name].name} for name in GROUPS})
        raise ConfigError(f"{error.full_key}: there is no such key; {remedy}") from None
    except OmegaConfBaseException as error:
        raise ConfigError(wrong_value(str(error.full_key), str(error))) from None
    missing = sorted(OmegaConf.missing_keys(data))
    if missing:
        group = missing[0].partition(".")[0]
        preset = f"conf/{group}/{data[group].name}.yaml" if group in GROUPS else ""
        remedy = f"write one in {preset}" if preset else "set it on the command line or in a preset under conf/"
        raise ConfigError(f"{missing[0]}: it has no value; {remedy}")
    config = OmegaConf.to_object(data)
    assert isinstance(config, Config)
    return config


def escaped(value: Any) -> Any:
    """Return a text, or the texts of nested data, with ``${`` escaped: omegaconf would take it for the name of a key."""
    if isinstance(value, dict):
        return {key: escaped(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [escaped(inner) for inner in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def _schema(data: DictConfig) -> DictConfig:
    """Return the types of all keys, those of the named model and objective included."""
    from pitfalls.objectives import objective_class
    from pitfalls.training.optimizers import method_class

    for group in GROUPS:
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
    schema.optimizer = OmegaConf.structured(method_class(str(OmegaConf.select(data, "optimizer.name"))).Config)
    return schema


def load_config(run_dir: Path) -> Config:
    """Return the config of a run folder. Keys, types and ranges are checked. Nothing is composed and nothing is interpolated.

    Raises:
        ConfigError: there is no config, or it is not one of this version.
    """
    path = run_dir / run_folder.CONFIG
    try:
        data = read_bytes(path, limit=MAX_CONFIG_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{path}: no such file, so {run_dir} is not the folder of a run; give one, such as runs/NAME") from None
    except FileError as error:
        raise ConfigError(str(error)) from None
    try:
        return _from_plain(decode(data, dict[str, Any], "it is no JSON"))
    except ValueError as error:  # a wrong value, of ours or of msgspec, or no JSON
        raise ConfigError(f"{path}: {error}; the file was changed, or another version wrote it: train the run again") from None


def _from_plain(data: dict[str, Any]) -> Config:
    """Return the config of nested dicts, as `write_config` wrote them.

    Raises:
        ValueError: a key is missing or unknown, or a value is of the wrong type or out of range.
    """
    from pitfalls.objectives import objective_class
    from pitfalls.training.optimizers import method_class

    data = _with_new_keys(data)
    types: dict[str, Any] = {"task": TaskConfig, "training": TrainingConfig}
    model, objective, optimizer = data.get("model"), data.get("objective"), data.get("optimizer")
    architecture = model.get("architecture") if isinstance(model, dict) else None
    if not isinstance(architecture, str) or architecture not in MODEL_SCHEMAS:
        raise ConfigError(f"model.architecture={architecture}: choose one of {', '.join(MODEL_SCHEMAS)}")
    types["model"] = MODEL_SCHEMAS[architecture]
    types["objective"] = objective_class(str(objective.get("name") if isinstance(objective, dict) else None)).Config
    types["optimizer"] = method_class(str(optimizer.get("name") if isinstance(optimizer, dict) else None)).Config
    _check_keys("", data, Config)
    parts = {name: _part(name, data[name], of_type) for name, of_type in types.items()}
    rest = {"seed": int, "runs_dir": str, "trackers": list[str]}
    return Config(**parts, **{name: _value(name, data[name], of_type) for name, of_type in rest.items()})


def _with_new_keys(data: dict[str, Any]) -> dict[str, Any]:
    """Return a config with the keys that an older version did not write (`run_folder.NEW_KEYS`)."""
    filled = dict(data)
    for path, value in run_folder.NEW_KEYS.items():
        group, key = path.split(".")
        if group not in data or isinstance(data[group], dict):
            filled[group] = {key: value} | filled.get(group, {})
    return filled


def _part(name: str, data: Any, of_type: type) -> Any:
    if not isinstance(data, dict):
        raise ConfigError(f"{name}: it must be a mapping of keys to values")
    _check_keys(f"{name}.", data, of_type)
    return _value(name, data, of_type)


def _value(name: str, data: Any, of_type: Any) -> Any:
    try:
        return msgspec.convert(data, of_type)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{name}: {error}") from None


def _check_keys(group: str, data: dict[str, Any], of_type: type) -> None:
    """Refuse unknown and missing keys. msgspec skips unknown ones of dataclasses."""
    names = {field.name for field in fields(of_type)}
    for key in [*sorted(data.keys() - names), *sorted(names - data.keys())]:
        raise ConfigError(f"{group}{key}: {'there is no such key' if key in data else 'the key is missing'}")


def resolve(config: Config, *, trained_here: bool = True) -> Config:
    """Return the config to train: device and precision are decided, and everything that can be is checked beforehand.

    Args:
        config: a composed config with checked types and ranges.
        trained_here: whether this machine trains the run. A run for another machine keeps the device that it names.

    Raises:
        ConfigError: the device is not there, the graphs are too few, objective, model and task do not go together, the run
            to start from has not finished, or a tracker is not installed.
    """
    import torch

    from pitfalls.models.device_memory import check_fits
    from pitfalls.models.model_folder import with_digest
    from pitfalls.objectives import check_objective, check_trunk
    from pitfalls.tasks.path_star import PathStar
    from pitfalls.tasks.splits import check_split
    from pitfalls.training.trackers import check_trackers

    if trained_here or "auto" in (config.training.device, config.training.precision):
        config = _with_device(config)
    task = PathStar(config.task.degree, config.task.path_length, config.task.n_values)
    check_objective(config.objective, task)
    device = torch.device(config.training.device) if trained_here else None
    recurrent = isinstance(config.model, RecurrentModelConfig)
    if isinstance(config.model, CausalLMModelConfig):
        from pitfalls.models.causal_lm import check_causal_lm

        n_tokens, n_positions = task.vocabulary.size, task.n_positions
        recurrent = check_causal_lm(config.model, n_tokens=n_tokens, n_positions=n_positions, device=device)
    positions = getattr(config.model, "learned_positions", True)
    check_trunk(config.objective, config.model.name, recurrent=recurrent, positions=positions)
    check_split(task, train_graphs=config.task.train_graphs, test_graphs=config.task.test_graphs)
    if device is not None:
        check_fits(config.model, config.task.n_values, device)
    _check_start(config.model.init_from)
    check_trackers(config.trackers)
    if isinstance(config.model, PretrainedModelConfig):
        config = replace(config, model=with_digest(config.model))
    _check_record(config)
    return config


def _check_start(start: str | None) -> None:
    """Refuse a folder to start from that is not a finished run under its own name, which is part of the new run's identity."""
    if start is None:
        return
    if not run_folder.is_finished(Path(start)):
        raise ConfigError(f"model.init_from={start}: not the folder of a finished run; give one, such as runs/NAME, or null")
    try:
        name = run_folder.read_summary(Path(start)).run
    except (OSError, FileError) as error:
        raise ConfigError(f"model.init_from={start}: {error}") from None
    if Path(start).name != name:
        raise ConfigError(f"model.init_from={start}: its record is that of the run {name}; give the folder that name again")


def _check_record(config: Config) -> None:
    """Refuse a config that the run's own files could not hold, by the types that read them."""
    try:
        data = msgspec.json.decode(json.dumps(asdict(config), allow_nan=False))
        msgspec.convert(data, ConfigRecord)
        msgspec.convert(run_folder.run_name(data), Name)
    except ValueError as error:  # msgspec's are ValueErrors, too
        raise ConfigError(f"its own reader would refuse the record of this run: {error}; choose another value") from None


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
    write_json(path, asdict(config))
