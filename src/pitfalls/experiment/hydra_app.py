"""The Hydra application ``pitfalls-train``: composes a config from ``conf/`` and the command line, resolves it and trains.

Hydra composes YAML under dataclass schemas. A misspelt key or a wrong type is therefore refused both in a preset file
and on the command line. Only this module and ``hydra_plugins.resuming_sweeper`` import hydra.
"""

import difflib
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from pitfalls.experiment.cli import exit_on_error, fail
from pitfalls.experiment.config import CONF, resolve, typed
from pitfalls.experiment.run import MakeDisplay, train_run
from pitfalls.runs.lock import RunTakenError
from pitfalls.schemas import MODEL_SCHEMAS, Config, ConfigError
from pitfalls.training.interrupt import Interrupted
from pitfalls.training.processes import from_environment

log = logging.getLogger(__name__)

HELP = """\
Train one run of the path-star bench (The Pitfalls of Next-Token Prediction, Bachmann & Nagarajan 2024).
The folder of the run is made under runs_dir. It holds config, metrics, checkpoint and record.

== Choices (group=option) ==
{choices}

== Config (override anything: key.key=value) ==
{config}
== Examples ==
{program} objective=teacherless task=g2_3 seed=0      one run
{program} training.lr=3e-4 task.train_graphs=200000   any key of the config above
{program} experiment=laptop/reversed                  a preset
{program} -m seed=0,1,2 objective=next_token,reversed every combination; all are checked before one starts
{program} --cfg job                                   print the config and train nothing
A finished run is not trained again. A stopped run continues where it was. --hydra-help lists the flags of hydra itself."""


@dataclass(kw_only=True)
class ComposedConfig(Config):
    """The config tree as hydra composes it. The keys of an objective have no types here: these would import torch."""

    objective: Any


def register_schemas() -> None:
    """Register the types of the config tree with hydra."""
    store = ConfigStore.instance()
    store.store(name="schema", node=ComposedConfig, provider="pitfalls")
    for name, schema in MODEL_SCHEMAS.items():
        store.store(group="model", name=f"{name}_schema", node=schema, provider="pitfalls")


def compose(overrides: Sequence[str] = ()) -> Config:
    """Return the config that ``python scripts/train.py OVERRIDES`` composes, with types and ranges checked.

    Raises:
        ConfigError: an override, or a preset that it names, is wrong.
    """
    composed = _composed(overrides)
    try:
        return to_config(composed)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from None


def _composed(overrides: Sequence[str]) -> DictConfig:
    register_schemas()
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            return hydra.compose("config", list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error)) from None


def to_config(composed: DictConfig) -> Config:
    """Return hydra's composed tree as a config, with types and ranges checked.

    Raises:
        ConfigError: a value is missing, out of range, or does not go with another one.
    """
    data = composed.copy()
    with open_dict(data):
        data.pop("hydra", None)  # the configs of a sweep have it
    return typed(data)


def explain(error: BaseException) -> str:
    """Return one line about an error of hydra or omegaconf: the error, its place, and the nearest existing key."""
    causes = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__
    lines = [[line.strip() for line in str(cause).splitlines() if line.strip()] for cause in causes]
    text = ": ".join(dict.fromkeys(of_one[0] for of_one in lines if of_one))
    if "Could not find" in text:
        text += "; " + " ".join(line for line in lines[0][1:] if not line.startswith(("Config search", "provider", "Set")))
    if "Could not load 'hydra/launcher/" in text:
        return text + " It is not installed; the first line of that file says how"
    unknown = next((key for cause in causes if (key := getattr(cause, "full_key", None))), None)
    return text + (f"; {nearest_key(unknown)}" if unknown and nearest_key(unknown) else "")


def nearest_key(unknown: str) -> str:
    """Return a suggestion for a key that does not exist, or an empty text if the key exists."""
    keys = [
        *_keys(Config),
        *(f"model.{f.name}" for schema in MODEL_SCHEMAS.values() for f in fields(schema)),
        *(f"objective.{key}" for path in (CONF / "objective").glob("*.yaml") for key in yaml.safe_load(path.read_text())),
    ]
    if unknown in keys:
        return ""
    near = difflib.get_close_matches(unknown, keys, n=1)
    near = near or [key for key in keys if key.split(".")[-1] == unknown.split(".")[-1]]
    return f"did you mean {near[0]}?" if near else "see --cfg job for all keys"


def _keys(schema: type, prefix: str = "") -> Iterator[str]:
    for f in fields(schema):
        yield f"{prefix}{f.name}"
        if isinstance(f.type, type) and is_dataclass(f.type):
            yield from _keys(f.type, f"{prefix}{f.name}.")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def _application(composed: DictConfig) -> None:
    settings = HydraConfig.get()
    overrides = list(settings.overrides.task)
    if settings.mode == RunMode.MULTIRUN:
        _sweep_job(composed, overrides)
    else:
        exit_on_error(lambda: _train_and_tell(composed, overrides), continues=True)  # before hydra adds a line of its own


def _sweep_job(composed: DictConfig, overrides: list[str]) -> None:
    """Train one run of a sweep. A failure is reported at once and stops no other run. A signal ends the sweep."""
    from pitfalls.training.display import plain_display

    try:
        _train_and_tell(composed, overrides, plain_display)
    except Interrupted as stopped:
        raise KeyboardInterrupt(str(stopped)) from None  # hydra would take it for a failure and go on
    except RunTakenError as taken:
        log.info("left out: %s", taken)
    except Exception as error:
        log.error("FAILED [%s] %s: %s", " ".join(overrides), type(error).__name__, error)
        raise


def _train_and_tell(composed: DictConfig, overrides: list[str], make_display: MakeDisplay | None = None) -> None:
    config = resolve(to_config(composed))
    started = time.monotonic()
    record = train_run(config, make_display=make_display, overrides=overrides)
    if record is None:  # the first of several processes reports it
        return
    shown = {"exact_match": record.test.exact_match.share, "first_hop": record.test.first_hop.share}
    log.info(
        "%s: %s after %s samples (%.0f s)",
        Path(config.runs_dir) / record.run,
        ", ".join(f"test {name} {value:.4f}" for name, value in shown.items() if value is not None),
        f"{record.samples_seen:,}",
        time.monotonic() - started,
    )


def show_help() -> None:
    """Print every choice, and every key with its value under the overrides of the command line.

    Hydra's own help takes seconds, because it copies its whole config for each group.
    """
    groups: dict[str, list[str]] = {}
    for path in sorted(CONF.glob("*/**/*.yaml")):
        groups.setdefault(path.parent.relative_to(CONF).as_posix(), []).append(path.stem)
    others = ("hydra", "degeneration")  # not part of a run's config
    choices = "\n".join(f"{group}: {', '.join(names)}" for group, names in groups.items() if not group.startswith(others))
    overrides = [word for word in sys.argv[1:] if "=" in word and not word.startswith("-")]
    program = "python scripts/train.py" if sys.argv[0].endswith(".py") else Path(sys.argv[0]).name
    print(HELP.format(choices=choices, config=OmegaConf.to_yaml(_composed(overrides)), program=program))


def main() -> None:
    """Compose, resolve and train. A mistake in the config ends the program with one line and status 2."""
    if {"-h", "--help"} & set(sys.argv):
        exit_on_error(show_help)
        return
    register_schemas()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hydra then raises errors instead of printing them itself
    if {"-m", "--multirun"} & set(sys.argv) and from_environment().n > 1:
        sys.exit(fail("error: a sweep under torchrun would start every job on every process; torchrun trains one run", 2))
    exit_on_error(_explained, continues=True)


def _explained() -> None:
    try:
        _application()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error)) from None
