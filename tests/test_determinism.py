"""The same seed on the same machine gives the same numbers bit for bit; another seed gives others (docs/determinism.md)."""

from pathlib import Path

import pytest

from pitfalls import experiment
from pitfalls.application import compose
from pitfalls.objectives import REGISTRY
from tests.tiny_runs import TINY, numbers

MODELS = {
    "gpt_nano": ["model=gpt_nano", "model.width=16"],
    "mamba_tiny": ["model=mamba_tiny", "model.width=16", "model.n_layers=2"],
    "mamba2_tiny": ["model=mamba2_tiny", "model.width=16", "model.n_layers=2", "model.head_dim=8"],
}


def train(tmp_path: Path, *overrides: str) -> object:
    config = compose([*TINY, "training.n_steps=6", *overrides, f"runs_dir={tmp_path}"])
    record = experiment.run(config, trackers=lambda config: [])
    return numbers(tmp_path / record["run"])


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("objective", sorted(REGISTRY))
def test_a_seed_repeats_bit_for_bit_and_another_differs(tmp_path: Path, objective: str, model: str, n_threads: int):
    import torch

    options = [f"objective={objective}", *MODELS[model], f"training.n_threads={n_threads}"]
    try:
        first, second, other = (train(tmp_path / d, *options, f"seed={s}") for d, s in (("a", 5), ("b", 5), ("c", 6)))
    finally:
        torch.set_num_threads(1)
    assert first == second
    assert first[1] != other[1]
