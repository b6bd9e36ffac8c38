"""The Hydra application: composes a config from ``conf/`` and the command line, checks it, and hands it to a run.

Hydra composes YAML under dataclass schemas, so a misspelt key or a wrong type is refused wherever it stands, in a preset
file as on the command line. With ``hydra_plugins.checked_sweeper``, the only module
that imports hydra.
"""

import difflib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from pitfalls import experiment
from pitfalls.configs import CONF, typed
from pitfalls.schemas import MODEL_SCHEMAS, Config, ConfigError
from pitfalls.training.interrupt import Interrupted

WANTS_TRACEBACKS = os.environ.get("HYDRA_FULL_ERROR") == "1"
log = logging.getLogger(__name__)


def register_schemas() -> None:
    """Tell hydra the types of the config tree."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config, provider="pitfalls")
    for name, schema in MODEL_SCHEMAS.items():
        store.store(group="model", name=f"{name}_schema", node=schema, provider="pitfalls")


def compose(overrides: Sequence[str] = ()) -> Config:
    """The config that ``python scripts/train.py OVERRIDES`` would run.

    Raises:
        ConfigError: an override, or a preset that it names, is wrong.
    """
    register_schemas()
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            return to_config(hydra.compose("config", list(overrides)))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error)) from None


def to_config(composed: DictConfig) -> Config:
    """The typed, range-checked config of what hydra composed.

    Raises:
        ConfigError: a value is missing, out of range, or does not go with another one.
    """
    data = composed.copy()
    with open_dict(data):
        data.pop("hydra", None)  # there in the configs of a sweep
    return typed(data)


def explain(error: BaseException) -> str:
    """One line about an error of hydra or omegaconf: what, where, and the nearest key that exists."""
    causes = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__
    lines = [[line.strip() for line in str(cause).splitlines() if line.strip()] for cause in causes]
    text = ": ".join(dict.fromkeys(of_one[0] for of_one in lines if of_one))
    if "Could not find" in text:
        text += "; " + " ".join(
            line for line in lines[0][1:] if not line.startswith(("Config search", "provider", "Set"))
        )
    unknown = next((key for cause in causes if (key := getattr(cause, "full_key", None))), None)
    return text + (f"; {nearest_key(unknown)}" if unknown and nearest_key(unknown) else "")


def nearest_key(unknown: str) -> str:
    """A suggestion for a key that does not exist, or nothing."""
    keys = [*_keys(Config), *(f"model.{f.name}" for schema in MODEL_SCHEMAS.values() for f in fields(schema))]
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
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        _train_and_tell(composed)  # a failure is reported by hydra and does not stop the sweep
    else:
        exit_on_error(lambda: _train_and_tell(composed))


def _train_and_tell(composed: DictConfig) -> None:
    config = to_config(composed)
    started = time.monotonic()
    record = experiment.run(config)
    test = record["evaluation"]["test"]
    shown = {name: test[name]["k"] / test[name]["n"] for name in ("exact_match", "first_hop") if test[name]["n"]}
    log.info(
        "%s: %s after %s samples (%.0f s)",
        Path(config.runs_dir) / record["run"],
        ", ".join(f"test {name} {value:.4f}" for name, value in shown.items()),
        f"{record['samples_seen']:,}",
        time.monotonic() - started,
    )


def main() -> None:
    """``scripts/train.py``: compose, check, train. A mistake in the config ends it with one line and status 2."""
    register_schemas()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hydra then raises errors instead of printing them its own way
    exit_on_error(_application)


def exit_on_error(program: Callable[[], Any]) -> None:
    """Run a program; print what its user can mend as one line instead of a traceback (HYDRA_FULL_ERROR=1 shows it).

    Exit status 2 for a wrong config, 1 for a run that failed, 130 for one that was stopped.
    """
    if WANTS_TRACEBACKS:
        program()
        return
    try:
        program()
    except (HydraException, OmegaConfBaseException, ConfigError) as error:
        sys.exit(_fail(f"error: {explain(error)}", 2))
    except (FloatingPointError, OSError, ValueError) as error:
        sys.exit(_fail(f"error: {error}", 1))
    except (KeyboardInterrupt, Interrupted) as stopped:
        command = " ".join(["python", *sys.argv])
        sys.exit(_fail(f"{stopped or 'stopped'}; the same command continues: {command}", 130))


def _fail(message: str, status: int) -> int:
    print(message, file=sys.stderr)
    return status
