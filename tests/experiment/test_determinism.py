"""The same seed on the same machine gives the same numbers bit for bit, and another seed others (docs/determinism.md)."""

from dataclasses import replace
from pathlib import Path

import pytest

from pitfalls.experiment.run import train_run
from pitfalls.objectives import NAMES
from pitfalls.runs import run_folder
from pitfalls.schemas import Config
from tests.small_models import small_preset
from tests.tiny_runs import numbers

MODELS = {
    "gpt_nano": {"width": 16, "n_layers": 2},
    "mamba_tiny": {"width": 16, "n_layers": 2},
    "mamba2_tiny": {"width": 16, "n_layers": 2, "head_dim": 8},
    **{name: {"sizes": small_preset(name).sizes} for name in ("llama_tiny", "qwen3_next_tiny")},
}


def train(runs_dir: Path, config: Config, seed: int) -> object:
    config = replace(config, seed=seed, runs_dir=str(runs_dir))
    record = train_run(config, make_display=lambda config: [])
    return numbers(runs_dir / record.run)


FAST = {"next_token", "scheduled_sampling", "belief_state"}
"""Objectives of the fast tests: next token, one that draws from a pass of its own, one with a second trunk."""


def cases() -> list:
    """Yield every objective on one model, and next token on every model with one thread and with two."""
    return [
        *(pytest.param(name, "gpt_nano", 1, marks=() if name in FAST else pytest.mark.slow) for name in NAMES),
        *(
            pytest.param("next_token", model, n, marks=() if n == 1 else pytest.mark.slow)
            for model in MODELS
            for n in (1, 2)
            if (model, n) != ("gpt_nano", 1)
        ),
    ]


OTHER = {
    "runs_dir": None,  # every run here has another one
    "trackers": ["tensorboard"],
    "training.log_every_steps": 2,
    "training.checkpoint_every_steps": 3,
    "training.probe_graphs": 5,
}
"""Another value for every key that is not part of a run's identity."""


@pytest.fixture
def usual(tmp_path: Path, config: Config) -> tuple[Config, object]:
    """A run of four steps whose objective draws, and its weights."""
    config = replace(config, training=replace(config.training, n_steps=4, eval_every_steps=2))
    return config, train(tmp_path / "usual", config, 5)[1]


@pytest.mark.parametrize("key", run_folder.NOT_IDENTITY)
def test_what_is_not_identity_changes_no_weight(tmp_path: Path, usual, key: str):
    """Guards against two runs with other weights that share a folder, such as two values of training.accumulation."""
    config, expected = usual
    group, _, name = key.rpartition(".")
    changed = {} if OTHER[key] is None else {name: OTHER[key]}
    changed = {group: replace(getattr(config, group), **changed)} if group else changed
    assert train(tmp_path / "changed", replace(config, **changed), 5)[1] == expected


@pytest.mark.parametrize(("objective", "model", "n_threads"), cases())
def test_a_seed_repeats_bit_for_bit_and_another_differs(
    tmp_path: Path, config: Config, model_preset, objective_preset, objective: str, model: str, n_threads: int
):
    import torch

    training = replace(config.training, n_steps=4, eval_every_steps=2, n_threads=n_threads)
    config = replace(
        config,
        task=replace(config.task, targets_per_graph=2),
        model=replace(model_preset(model), **MODELS[model]),
        objective=objective_preset(objective),
        training=training,
    )
    try:
        first, second, other = (train(tmp_path / folder, config, seed) for folder, seed in (("a", 5), ("b", 5), ("c", 6)))
    finally:
        torch.set_num_threads(1)
    assert first == second
    assert first[1] != other[1]
