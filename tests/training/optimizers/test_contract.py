"""What every optimizer has to do, present and future: place each weight once, name it, come back from a checkpoint."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pitfalls.experiment.build import build
from pitfalls.experiment.config import resolve
from pitfalls.experiment.hydra_app import compose
from pitfalls.schemas import ConfigError, OptimizerConfig
from pitfalls.seeding import generator
from pitfalls.training import checkpoint, optimizers
from pitfalls.training.optimizers import NAMES, make_optimizers, method_class
from pitfalls.training.optimizers.adamw import AdamW, adamw_part
from pitfalls.training.optimizers.base import Optimizers, weights_of

CONTRIBUTING = Path(__file__).resolve().parents[3] / "CONTRIBUTING.md"
CASES = [
    (name, model, objective)
    for name in NAMES
    for model, objective in [
        ("gpt_nano", "belief_state"),
        ("gpt_nano", "joint_multi_token"),
        ("gpt_conv", "token_order"),
        ("mamba_tiny", "next_token"),
        ("mamba2_tiny", "multi_token"),
    ]
]


@pytest.fixture(params=CASES, ids=lambda case: "-".join(case))
def run(request: pytest.FixtureRequest, tmp_path: Path):
    name, model, objective = request.param
    small = ["model.n_layers=2", "training.precision=fp32", f"runs_dir={tmp_path}"]
    return build(resolve(compose([f"optimizer={name}", f"model={model}", f"objective={objective}", *small])))


def step(run, made, number: int) -> None:
    batch = run.task.sample(4, generator(number, "data"))
    draws = generator(number, "objective")
    run.objective.training_loss(run.trunk, batch, step=number, generator=draws).total.backward()
    made.set_lr(1.0)
    made.step()


def test_each_weight_is_in_one_part_and_has_a_name(run):
    """Guards against weights that nothing updates, and a record that does not say which optimizer did."""
    made = make_optimizers(run.trunk, run.objective, run.config.optimizer, run.config.training)
    expected = {id(p) for module in (run.trunk, run.objective) for p in module.parameters() if p.requires_grad}
    assert {id(p) for p in made.parameters} == expected
    assert len(made.parameters) == len(expected)
    said = [re.escape(name).replace(r"\.\*\.", r"\.\d+\.") for names in made.placement().values() for name in names]
    for weight in weights_of(run.trunk, run.objective):
        assert sum(re.fullmatch(pattern, weight.name) is not None for pattern in said) == 1, weight.name


def test_embeddings_heads_and_vectors_are_not_hidden(run):
    """Guards against Muon on a table of embeddings, an unembedding, or the decay rates of a Mamba."""
    hidden = [w for w in weights_of(run.trunk, run.objective) if w.hidden]
    table = run.trunk.lm.get_input_embeddings().weight
    size = run.objective.spec.vocabulary.size
    assert len(hidden) >= 4
    for weight in hidden:
        assert weight.parameter is not table
        assert weight.parameter.dim() == 2
        assert size not in weight.parameter.shape, weight.name
        assert not re.search(r"wpe|wte|embed|A_log|conv|norm|ln_", weight.name), weight.name
        assert sum(weight.sizes) == weight.parameter.shape[weight.out_dim]


def check_goes_on_bit_for_bit(run, made, folder: Path) -> None:
    """Train two steps, save, and take the third step twice: in memory, and from the checkpoint."""
    parts = {"trunk": run.trunk, "objective": run.objective}
    for number in range(2):
        step(run, made, number)
    path = checkpoint.save(folder / "c", **parts, optimizers=made, progress=checkpoint.Progress(step=2))
    step(run, made, 2)
    whole = [p.detach().clone() for p in made.parameters]
    again = make_optimizers(run.trunk, run.objective, run.config.optimizer, run.config.training)
    checkpoint.load(path, **parts, optimizers=again)
    step(run, again, 2)
    assert all(torch.equal(a, b) for a, b in zip(whole, again.parameters, strict=True))


def test_it_comes_back_from_a_checkpoint_bit_for_bit(run, tmp_path: Path):
    """Guards against state that is not saved, or is given to another weight."""
    made = make_optimizers(run.trunk, run.objective, run.config.optimizer, run.config.training)
    check_goes_on_bit_for_bit(run, made, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_its_preset_names_it(name: str):
    config = compose([f"optimizer={name}"])
    assert config.optimizer.name == name
    assert isinstance(config.optimizer, method_class(name).Config)


@pytest.mark.parametrize("name", ["__init__", "base", "../trainer", "os"])
def test_a_config_cannot_name_other_code(name: str):
    with pytest.raises(ConfigError, match="optimizer.name=.*: choose one of adamw, muon"):
        method_class(name)


def test_a_file_with_two_optimizers_is_told(monkeypatch: pytest.MonkeyPatch):
    """Guards against the first of two classes, taken without a word."""
    second = type("Second", (AdamW,), {"__module__": AdamW.__module__})
    monkeypatch.setattr("pitfalls.training.optimizers.adamw.Second", second, raising=False)
    with pytest.raises(ConfigError, match=r"adamw.py has 2 subclasses of Method; it needs exactly one"):
        method_class("adamw")


def test_a_weight_that_no_part_takes_is_told(run):
    """Guards against a new optimizer that forgets the vectors: they would never be trained."""
    weights = weights_of(run.trunk, run.objective)
    with pytest.raises(ValueError, match=f"the parts take {len(weights) - 1} parameters, and there are {len(weights)} weights"):
        Optimizers(weights, [adamw_part(weights[1:], run.config.training)])


def test_the_example_of_contributing_trains_and_resumes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config):
    """Guards against an example that no longer runs."""
    section = CONTRIBUTING.read_text().split("## Add an optimizer")[1].split("## Add")[0]
    (tmp_path / "optimizers").mkdir()
    (tmp_path / "optimizers" / "sgd.py").write_text(section.split("```python")[1].split("```")[0])
    monkeypatch.setattr("pitfalls.training.optimizers.__path__", [*optimizers.__path__, str(tmp_path / "optimizers")])
    monkeypatch.setattr("pitfalls.training.optimizers.NAMES", (*NAMES, "sgd"))
    monkeypatch.delitem(sys.modules, "pitfalls.training.optimizers.sgd", raising=False)
    assert "`name: sgd`" in section
    run = build(replace(config, optimizer=OptimizerConfig(name="sgd")))
    made = make_optimizers(run.trunk, run.objective, run.config.optimizer, run.config.training)
    assert set(made.placement()) == {"sgd"}
    check_goes_on_bit_for_bit(run, made, tmp_path)
