"""The Hydra application ``pitfalls-train``: composes a config from ``conf/`` and the command line, resolves it and trains.

Hydra composes YAML under dataclass schemas. A misspelt key or a wrong type is therefore refused both in a preset file
and on the command line. Only this module and ``hydra_plugins.resuming_sweeper`` import hydra.
"""

import argparse
import logging
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from pitfalls.experiment.cli import OUT_OF_MEMORY, existing_folder, exit_on_error, is_out_of_memory, writable_folder
from pitfalls.experiment.config import CONF, escaped, resolve, run_dir_of, typed
from pitfalls.experiment.mistakes import explain, key_remedy
from pitfalls.experiment.run import MakeDisplay, train_run
from pitfalls.runs import run_folder
from pitfalls.runs.lock import RunTakenError
from pitfalls.schemas import MODEL_SCHEMAS, Config, ConfigError, printable
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
    """The config tree as hydra composes it. Objective and optimizer have no types here, because these would import torch."""

    objective: Any
    optimizer: Any


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
    if isinstance(overrides, str):
        raise ConfigError(f"{overrides!r}: a text, and a list of texts is needed; write [{overrides!r}]")
    with explained(overrides):
        return to_config(_composed(overrides))


def override(key: str, value: str | Path) -> str:
    """Return ``key=value`` in hydra's grammar, quoted so that the value may be any text, such as the path of a folder.

    Without quotes, hydra's grammar refuses letters beyond ASCII and ``( ) , # { }``, and reads ``1e3`` as a number.
    """
    quoted = re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), escaped(str(value)))
    return f"{key}='{quoted}'"


@contextmanager
def explained(overrides: Sequence[str], own: Path | None = None) -> Iterator[None]:
    """Turn the errors of hydra, omegaconf and PyYAML about a preset or an override into one line each.

    Args:
        overrides: the command line.
        own: the user's own folder of presets, if there is one.

    Raises:
        ConfigError: the mistake, its place and the remedy.
    """
    try:
        yield
    except ConfigError:
        raise
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        line = explain(error, CONF, overrides, partial(_chosen, overrides), own)
        if line is None:
            raise
        raise ConfigError(line) from None


def _composed(overrides: Sequence[str], own: Path | None = None) -> DictConfig:
    register_schemas()
    place = [] if own is None else [override("hydra.searchpath", f"file://{own.absolute()}").replace("=", "=[", 1) + "]"]
    running = GlobalHydra.instance()
    before, running.hydra = running.hydra, None  # a sweep that explains a mistake is itself within hydra
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            return hydra.compose("config", [*overrides, *place])
    finally:
        running.hydra = before


def _chosen(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the config of the presets that overrides choose. If a preset is wrong, it is the default config."""
    groups = [text for text in overrides if (CONF / text.partition("=")[0]).is_dir() and "=" in text]
    for choices in (groups, []):
        try:
            return cast(dict[str, Any], OmegaConf.to_container(_composed(choices)))
        except (HydraException, OmegaConfBaseException, YAMLError, ValueError):
            continue
    return {}


def to_config(composed: DictConfig) -> Config:
    """Return hydra's composed tree as a config, with types and ranges checked.

    Raises:
        ConfigError: a value is missing, out of range, or does not go with another one.
    """
    data = composed.copy()
    with open_dict(data):
        data.pop("hydra", None)  # the configs of a sweep have it
    return typed(data)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def _application(composed: DictConfig) -> None:
    settings = HydraConfig.get()
    overrides = cast(list[str], OmegaConf.to_container(settings.overrides.task))  # as typed
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
        said = OUT_OF_MEMORY if is_out_of_memory(error) else f"{type(error).__name__}: {error}"
        log.error("FAILED %s", printable(f"[{' '.join(overrides)}] {said}"))
        raise


def check_folder_stays(settings: Any) -> None:
    """Refuse hydra's change of the working folder: relative paths, such as runs_dir, would mean another place afterwards.

    Args:
        settings: the part ``hydra`` of a composed config.

    Raises:
        ConfigError: ``hydra.job.chdir`` is true.
    """
    if settings.job.chdir:
        raise ConfigError("hydra.job.chdir=true: a run writes to its own folder under runs_dir already; leave it out")


def _train_and_tell(composed: DictConfig, overrides: list[str], make_display: MakeDisplay | None = None) -> None:
    check_folder_stays(HydraConfig.get())
    config = resolve(to_config(composed))
    if not run_folder.is_finished(run_dir_of(config)):
        writable_folder(Path(config.runs_dir), "runs_dir=")
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


def show_help(overrides: Sequence[str], own: Path | None) -> None:
    """Print every choice, those of the user's own folder of presets included, and every key with its value.

    Hydra's own help takes seconds, because it copies its whole config for each group.
    """
    groups: dict[str, list[str]] = {}
    for folder in (CONF, *([own] if own else [])):
        for path in sorted(folder.glob("*/**/*.yaml")):
            groups.setdefault(path.parent.relative_to(folder).as_posix(), []).append(path.stem)
    others = ("hydra", "degeneration")  # not part of a run's config
    choices = "\n".join(f"{group}: {', '.join(names)}" for group, names in groups.items() if not group.startswith(others))
    program = "python scripts/train.py" if sys.argv[0].endswith(".py") else Path(sys.argv[0]).name
    with explained(overrides, own):
        config = OmegaConf.to_yaml(_composed(overrides, own))
    print(HELP.format(choices=choices, config=config, program=program))


def main() -> None:
    """Compose, resolve and train. A mistake in the config ends the program with one line and status 2."""
    register_schemas()
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hydra then raises errors instead of printing them itself
    try:
        exit_on_error(_checked_application, continues=True)
    finally:  # what this process starts later is to end with one line
        os.environ.pop("HYDRA_FULL_ERROR")
        if before is not None:
            os.environ["HYDRA_FULL_ERROR"] = before


def _checked_application() -> None:
    arguments = _arguments()
    own = Path(arguments.config_dir) if arguments.config_dir else None
    if own is not None:
        existing_folder(own, "give a folder with presets, such as DIR/experiment/mine.yaml", "--config-dir")
    if arguments.help:
        show_help(arguments.overrides, own)
        return
    if arguments.multirun and from_environment().n > 1:
        raise ConfigError("-m: a sweep under torchrun would start every job on every process; leave -m out, and train one run")
    if arguments.cfg and not arguments.config_dir:
        resolve(compose(arguments.overrides), trained_here=False)
    with explained(arguments.overrides, own):
        try:
            _application()
        except MissingConfigException:  # an OSError too
            raise
        except OSError as error:  # of hydra, which makes runs_dir; those of the training end the program before
            raise ConfigError(f"runs_dir={error.filename}: {error.strerror}; choose a folder that you can write to") from None


def _arguments() -> argparse.Namespace:
    """Return hydra's command line.

    Raises:
        ConfigError: an option does not exist or has a wrong value. Hydra itself prints its whole usage.
    """
    parser = get_args_parser()
    parser.exit_on_error = False
    try:
        arguments, unknown = parser.parse_known_args()
    except argparse.ArgumentError as error:
        raise ConfigError(f"{error}; --hydra-help lists hydra's options") from None
    if unknown:
        if not unknown[0].startswith("-"):
            raise ConfigError(f"{unknown[0]}: stands behind an option; write options such as -m in front of all KEY=VALUE")
        name = unknown[0].lstrip("-").partition("=")[0].replace("-", "_")
        remedy = key_remedy(name, _chosen(()))
        raise ConfigError(f"{unknown[0]}: no such option; keys are written KEY=VALUE, without dashes: {remedy}")
    return arguments
