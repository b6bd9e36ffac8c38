"""Initial weights: their sizes, their spread, and what they depend on."""

import math
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from pitfalls.models.factory import build_block, build_trunk
from pitfalls.models.masks import causal_mask
from pitfalls.models.trunk import Trunk
from pitfalls.schemas import GPT2ModelConfig, ModelConfig
from pitfalls.seeding import generator
from pitfalls.tasks.path_star import PathStar
from tests.conftest import move_vectors

PAPER = PathStar(2, 5, 50)


def paper_trunk(config: GPT2ModelConfig, seed: int = 0) -> Trunk:
    """Return a trunk for G(2,5) on 50 node values."""
    return build_trunk(
        config,
        n_tokens=PAPER.vocabulary.size,
        n_positions=PAPER.n_positions,
        generator=generator(seed, "init"),
        device=torch.device("cpu"),
    )


def weights(trunk: Trunk, pattern: str) -> torch.Tensor:
    """Return all weights whose name matches, in one vector."""
    found = [p.detach().flatten() for name, p in trunk.named_parameters() if re.search(pattern, name)]
    assert found, pattern
    return torch.cat(found)


# ------------------------------------------------------------------ sizes


def n_parameters(n_layers: int, width: int) -> int:
    """Return the number of parameters, counted by hand: tied embeddings, 60 tokens, 50 positions, MLP ratio 4."""
    norms = 2 * 2 * width
    attention = (width + 1) * 3 * width + (width + 1) * width
    mlp = (width + 1) * 4 * width + (4 * width + 1) * width
    return (60 + 50) * width + n_layers * (norms + attention + mlp) + 2 * width


@pytest.mark.parametrize(("name", "n_layers", "width", "published"), [("gpt_tiny", 4, 128, "0.8"), ("gpt_mini", 12, 384, "21.3")])
def test_presets_have_the_published_size(model_preset, name: str, n_layers: int, width: int, published: str):
    """Guards against untied embeddings, a missing layer, another MLP width."""
    counted = sum(p.numel() for p in paper_trunk(model_preset(name)).parameters())
    assert counted == n_parameters(n_layers, width)
    assert f"{counted / 1e6:.1f}" == published


def test_embeddings_are_tied(model_preset):
    lm = paper_trunk(model_preset("gpt_tiny")).lm
    assert lm.get_input_embeddings().weight is lm.get_output_embeddings().weight


def test_dropout_is_off_everywhere(model_preset):
    trunk = paper_trunk(model_preset("gpt_tiny"))
    assert all(module.p == 0.0 for module in trunk.modules() if isinstance(module, nn.Dropout))


@pytest.mark.parametrize("activation", ["gelu", "gelu_pytorch_tanh"])
def test_the_activation_is_the_configured_one(make_trunk, activation: str):
    """Guards against defect 15 of the official code: a tanh-GELU where the model has the exact one. They differ by 5e-4."""
    x = torch.linspace(-3, 3, 101)
    expected = nn.functional.gelu(x, approximate="none" if activation == "gelu" else "tanh")
    for block in make_trunk(activation=activation).lm.transformer.h:
        torch.testing.assert_close(block.mlp.act(x), expected, atol=1e-6, rtol=0)


# ------------------------------------------------------------------ spread


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("position_std", [0.02, 1.0])
def test_every_group_of_weights_has_the_configured_spread(model_preset, scaled: bool, position_std: float):
    """Guards against defects 4 and 5 of the official code: positions left at N(0,1), a residual init that matches no name."""
    config = replace(model_preset("gpt_tiny"), weight_init_std=0.03, position_init_std=position_std, scaled_residual_init=scaled)
    trunk = paper_trunk(config)
    residual = 0.03 / math.sqrt(2 * 4) if scaled else 0.03
    expected = {
        r"wte\.weight": 0.03,
        r"wpe\.weight": position_std,
        r"c_attn\.weight": 0.03,
        r"c_fc\.weight": 0.03,
        r"attn\.c_proj\.weight": residual,
        r"mlp\.c_proj\.weight": residual,
    }
    for pattern, std in expected.items():
        values = weights(trunk, pattern).double()
        assert values.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * len(values))), pattern
        assert values.mean().abs().item() < 5 * std / math.sqrt(len(values)), pattern
    assert (weights(trunk, r"\.bias$") == 0).all()
    assert (weights(trunk, r"ln_\w+\.weight$") == 1).all()
    checked = sum(len(weights(trunk, pattern)) for pattern in (*expected, r"\.bias$", r"ln_\w+\.weight$"))
    assert checked == sum(p.numel() for p in trunk.parameters()), "a group of weights is not looked at"


@pytest.mark.parametrize("n_layers", [1, 6])
def test_a_block_that_an_objective_adds_is_drawn_as_the_trunk_s_own(model_preset, n_layers: int):
    """Guards against a residual init scaled to the one layer that is built instead of the depth that it stands at."""
    config = replace(model_preset("gpt_tiny"), n_layers=n_layers, weight_init_std=0.03)
    trunk = paper_trunk(config)
    block = build_block(config, trunk, generator=generator(0, "objective_init"), device=torch.device("cpu"))
    own = dict(trunk.lm.transformer.h[-1].named_parameters())
    added = dict(block.block.named_parameters())
    assert added.keys() == own.keys()
    for name, values in added.items():
        if values.dim() == 2:
            assert values.std().item() == pytest.approx(own[name].std().item(), rel=10 / math.sqrt(2 * values.numel())), name
            assert not torch.equal(values, own[name])
        else:
            assert torch.equal(values, own[name])


def test_a_block_beside_another_kind_of_trunk_counts_its_layers(model_preset):
    trunk = paper_trunk(model_preset("mamba_tiny"))
    block = build_block(model_preset("mamba_tiny"), trunk, generator=generator(0, "objective_init"), device=torch.device("cpu"))
    values = block.block.mlp.c_proj.weight
    assert values.std().item() == pytest.approx(0.02 / math.sqrt(2 * trunk.n_layers), rel=10 / math.sqrt(2 * values.numel()))


@pytest.mark.parametrize(("name", "n_heads"), [("mamba", 8), ("mamba_tiny", 2), ("gpt_mini", 6)])
def test_a_block_has_as_many_heads_as_share_the_width(model_preset, name: str, n_heads: int):
    """Guards against 784 // 64 = 12 heads for the paper's Mamba. They do not divide its width, so multi-token heads failed."""
    config = replace(model_preset(name), n_layers=1)
    trunk = paper_trunk(config)
    assert trunk.n_heads == n_heads
    block = build_block(config, trunk, generator=generator(0, "objective_init"), device=torch.device("cpu"))
    states = torch.randn(2, 7, trunk.width, generator=generator(0, "probe"))
    assert block(states).shape == states.shape


@pytest.mark.parametrize("first", [0, 3, 6])
def test_a_block_from_a_position_on_gives_what_the_whole_gives_there(model_preset, first: int):
    """Compare with transformers' own block under a causal mask."""
    trunk = paper_trunk(model_preset("gpt_tiny"))
    block = build_block(model_preset("gpt_tiny"), trunk, generator=generator(0, "objective_init"), device=torch.device("cpu"))
    move_vectors(block)
    states = torch.randn(2, 7, trunk.width, generator=generator(0, "probe"))
    whole = block.block(states, attention_mask=causal_mask(7, 7, states.dtype, states.device))
    torch.testing.assert_close(block(states, first), whole[:, first:], atol=1e-5, rtol=1e-5)


def test_every_layer_is_drawn_afresh(model_preset):
    """Guards against one generator per layer from the same seed."""
    trunk = paper_trunk(model_preset("gpt_tiny"))
    first = {name: p[0, :8].tolist() for name, p in trunk.named_parameters() if p.dim() == 2}
    assert len({tuple(row) for row in first.values()}) == len(first)


def test_a_config_without_a_builder_is_refused():
    with pytest.raises(ValueError, match="model=other: no builder for a ModelConfig"):
        paper_trunk(ModelConfig(name="other", architecture="other", init_from=None))


# ------------------------------------------------------------------ seeds


def equal(a: nn.Module, b: nn.Module) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_weights_depend_on_the_seed_alone(make_trunk):
    """Guards against weights drawn from the global generator: it is in another state each time here."""
    torch.manual_seed(0)
    first = make_trunk(0)
    torch.manual_seed(1)
    assert equal(make_trunk(0), first)
    other = make_trunk(1)
    same = [name for name, p in other.named_parameters() if torch.equal(p, dict(first.named_parameters())[name])]
    assert all(re.search(r"bias$|ln_\w+\.weight$", name) for name in same)


def test_building_leaves_the_global_generator_alone(make_trunk):
    """Guards against a model size that changes what is drawn after it."""
    torch.manual_seed(7)
    before = torch.get_rng_state()
    make_trunk()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["gpt_tiny", "mamba_tiny", "mamba2_tiny"])
def test_building_on_a_cpu_starts_no_gpu_of_the_machine(model_preset, monkeypatch, name: str):
    """Guards against a bare `fork_rng` around a constructor: with several GPUs it starts them all and warns."""
    monkeypatch.setattr(torch.random, "_fork_rng_warned_already", False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: pytest.fail(f"the generator of GPU {device} is read"))
    paper_trunk(model_preset(name))
