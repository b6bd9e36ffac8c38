"""Mamba and Mamba-2: initial weights, names, equality with transformers' model, cached decoding, and refused inputs."""

import inspect
import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close
from transformers import Mamba2Config, Mamba2ForCausalLM, MambaConfig, MambaForCausalLM

from pitfalls.evaluation import decoding
from pitfalls.experiment.build import build
from pitfalls.models import hf_internals
from pitfalls.models.factory import build_trunk
from pitfalls.models.trunk import Trunk
from pitfalls.objectives import NAMES, objective_class
from pitfalls.schemas import Config, ConfigError, Mamba2ModelConfig, MambaModelConfig, ModelConfig
from pitfalls.seeding import generator
from pitfalls.tasks.path_star import PathStar
from pitfalls.training.optimizers.adamw import adamw_part
from pitfalls.training.optimizers.base import weights_of

PAPER = PathStar(2, 5, 50)
MAMBAS = ["mamba_tiny", "mamba2_tiny"]

MIXER_1 = {
    "A_log",
    "D",
    "conv1d.weight",
    "conv1d.bias",
    "in_proj.weight",
    "x_proj.weight",
    "dt_proj.weight",
    "dt_proj.bias",
    "out_proj.weight",
}
MIXER_2 = {"A_log", "D", "conv1d.weight", "conv1d.bias", "in_proj.weight", "dt_bias", "norm.weight", "out_proj.weight"}
NAMES_OF_MAMBA_SSM = {
    "mamba_tiny": {f"backbone.layers.0.mixer.{name}" for name in MIXER_1},
    "mamba2_tiny": {f"backbone.layers.0.mixer.{name}" for name in MIXER_2},
}
"""The names of one layer in the state dict of mamba_ssm's MambaLMHeadModel."""


@pytest.fixture(params=MAMBAS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def small(model_preset, make_trunk, name: str) -> Trunk:
    """A trunk of two layers of width 32, with weights large enough that outputs differ from token to token."""
    return make_trunk(config=model_preset(name), n_layers=2, width=32, embedding_init_std=0.2, projection_init_gain=4.0).eval()


def paper_trunk(config: ModelConfig, seed: int = 0) -> Trunk:
    return build_trunk(
        config,
        n_tokens=PAPER.vocabulary.size,
        n_positions=PAPER.n_positions,
        generator=generator(seed, "init"),
        device=torch.device("cpu"),
    )


def weights(trunk: Trunk, ending: str) -> torch.Tensor:
    """Return all weights whose name ends so, in one vector."""
    found = [p.detach().flatten() for name, p in trunk.named_parameters() if name.endswith(ending)]
    assert found, ending
    return torch.cat(found)


# ------------------------------------------------------------------ initial weights


@pytest.mark.parametrize("scaled", [True, False])
def test_initial_weights_are_the_configured_ones(model_preset, name: str, scaled: bool):
    """Guards against transformers' own initialisation, which differs from mamba_ssm's in embeddings, projections and A."""
    config = replace(model_preset(name), scaled_residual_init=scaled, projection_init_gain=0.8)
    trunk = paper_trunk(config)
    assert weights(trunk, "embeddings.weight").std().item() == pytest.approx(0.02, rel=0.05)
    out = 0.8 / math.sqrt(256) / (math.sqrt(4) if scaled else 1)
    for ending, bound in (
        (".in_proj.weight", 0.8 / math.sqrt(128)),
        (".out_proj.weight", out),
        (".conv1d.weight", 0.4),
        (".conv1d.bias", 0.4),
    ):
        values = weights(trunk, ending)
        assert values.abs().max().item() == pytest.approx(bound, rel=0.01), ending
        assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05), ending
    assert (weights(trunk, ".D") == 1).all()
    assert (weights(trunk, "norm_f.weight") == 1).all()
    steps = torch.nn.functional.softplus(weights(trunk, "dt_proj.bias" if name == "mamba_tiny" else "dt_bias"))
    assert 0.9e-3 < steps.min() < steps.max() < 0.11
    rates = weights(trunk, "A_log").exp()
    if name == "mamba_tiny":
        assert_close(rates.view(-1, 16), torch.arange(1.0, 17.0).expand(4 * 256, 16))
    else:
        assert 1 <= rates.min() < 5 < 11 < rates.max() <= 16
        assert len(rates.unique()) == 4 * 8


@pytest.mark.parametrize(("preset", "millions"), [("mamba_tiny", "0.5"), ("mamba2_tiny", "0.4")])
def test_size_and_ties(model_preset, preset: str, millions: str):
    trunk = paper_trunk(model_preset(preset))
    assert f"{sum(p.numel() for p in trunk.parameters()) / 1e6:.1f}" == millions
    assert trunk.lm.get_input_embeddings().weight is trunk.lm.get_output_embeddings().weight


def test_the_seed_alone_decides(model_preset, name: str):
    """Guards against draws from the global generator by transformers' constructors, and a global generator that they move."""
    states = []
    for i, seed in enumerate((0, 0, 1)):
        torch.manual_seed(i)
        before = torch.get_rng_state()
        states.append(paper_trunk(model_preset(name), seed).state_dict())
        assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert any(not torch.equal(states[0][key], states[2][key]) for key in states[0])


def test_the_trunk_of_a_seed_is_the_same_for_every_objective(config: Config, model_preset, objective_preset, name: str):
    config = replace(config, model=replace(model_preset(name), n_layers=1, width=32))
    states = []
    for objective in NAMES:
        if objective_class(objective).needs:
            continue
        cell = build(replace(config, objective=objective_preset(objective)))
        states.append(cell.trunk.state_dict())
    assert all(torch.equal(state[key], states[0][key]) for state in states for key in state)


def test_names_are_those_of_mamba_ssm(small: Trunk, name: str):
    """Guards against a renamed parameter: weights can be exchanged with mamba_ssm, where only the embedding has another name."""
    keys = {key for key in small.lm.state_dict() if ".layers.0.mixer." in key}
    assert keys == NAMES_OF_MAMBA_SSM[name]
    rest = {key for key in small.lm.state_dict() if ".mixer." not in key}
    norms = {f"backbone.layers.{i}.norm.weight" for i in range(2)}
    assert rest == {"backbone.embeddings.weight", "backbone.norm_f.weight", "lm_head.weight"} | norms


def test_decay_rates_and_skips_are_not_decayed(small: Trunk, training):
    """Guards against weight decay on A_log, a matrix in Mamba-1. transformers does not mark it as mamba_ssm does."""
    groups = adamw_part(weights_of(small, torch.nn.Identity()), training).optimizer.param_groups
    decayed, free = ({id(p) for p in group["params"]} for group in groups)
    for key, parameter in small.named_parameters():
        bare = key.endswith((".A_log", ".D", "bias", "norm.weight", "norm_f.weight"))
        assert id(parameter) in (free if bare else decayed), key
    assert len(decayed) + len(free) == len(list(small.parameters()))


# ------------------------------------------------------------------ against the stock model


@pytest.fixture
def unpatched(monkeypatch) -> None:
    """Use transformers' own torch functions during a test."""
    hf_internals.dispatch_mamba_kernels()
    for module, names in hf_internals.DISPATCHED.items():
        for function in names:
            bound = getattr(module, function)
            monkeypatch.setattr(module, function, inspect.unwrap(bound.on_gpu))


def stock(small: Trunk, name: str) -> torch.nn.Module:
    """Return a model of transformers made from the config alone, with the same weights."""
    classes = {"mamba_tiny": (MambaConfig, MambaForCausalLM), "mamba2_tiny": (Mamba2Config, Mamba2ForCausalLM)}
    config_class, model_class = classes[name]
    lm = model_class(config_class(**small.lm.config.to_dict()))
    lm.load_state_dict(small.lm.state_dict())
    return lm.eval()


def outcome(lm: torch.nn.Module, tokens: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
    """Return logits, gradients, and the greedy tokens of transformers' generate."""
    logits = lm(tokens, use_cache=False).logits
    torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    grads = [p.grad for p in lm.parameters()]
    mask = torch.ones_like(tokens)
    return logits, grads, lm.generate(tokens, attention_mask=mask, max_new_tokens=6, do_sample=False, pad_token_id=0)


def test_the_patched_model_is_the_stock_model(small: Trunk, name: str, request: pytest.FixtureRequest):
    """Guards against errors of all fast functions, in the model that uses them: logits, all gradients, greedy generation."""
    tokens = torch.randint(0, 20, (3, 37), generator=generator(0, "probe"))  # longer than one chunk of Mamba-2
    ours = outcome(small.lm, tokens)
    request.getfixturevalue("unpatched")
    theirs = outcome(stock(small, name), tokens)
    assert_close(ours[0], theirs[0], atol=2e-5, rtol=1e-5)
    for a, b in zip(ours[1], theirs[1], strict=True):
        assert_close(a, b, atol=2e-5, rtol=1e-3)
    assert torch.equal(ours[2], theirs[2])
    assert len(ours[2][:, 37:].unique()) > 2, "a model that always says the same would prove nothing"


# ------------------------------------------------------------------ the trunk


@pytest.mark.parametrize("objective_name", ["next_token", "reversed", "first_hop"])
def test_cached_decoding_equals_uncached(small: Trunk, make_objective, task, objective_name: str):
    objective = make_objective(objective_name)
    prompt = task.sample(16, generator(2, "data")).prompt
    fast = decoding.autoregressive(small, objective, prompt, task.target_length)
    assert torch.equal(fast, decoding.autoregressive_uncached(small, objective, prompt, task.target_length))
    assert len(fast[:, 1:].unique()) > 3


def test_bf16_autocast_is_close_to_fp32(make_trunk, model_preset, name: str):
    """Guards against a crash under autocast, as on CPUs with bf16, and a recurrence that loses its state to rounding."""
    small = make_trunk(config=model_preset(name), n_layers=2, width=32)  # the preset's weights: large ones amplify rounding
    tokens = torch.randint(0, 20, (4, 20), generator=generator(0, "probe"))
    results = []
    for enabled in (False, True):
        small.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            normed = small(tokens).normed
            cache = small.new_cache()
            small(tokens[:, :-1], cache=cache)
            last = small(tokens[:, -1:], cache=cache).normed
        normed.float().pow(3).sum().backward()
        results.append((normed.float(), last.float(), small.lm.backbone.layers[0].mixer.A_log.grad.clone()))
    (exact, exact_last, exact_grad), (rough, rough_last, rough_grad) = results
    assert (rough - exact).abs().max() < 0.1 * exact.abs().max()
    assert (rough_last[:, 0] - exact[:, -1]).abs().max() < 0.1 * exact.abs().max()
    assert_close(exact_last[:, 0], exact[:, -1], atol=1e-5, rtol=1e-4)
    assert (rough_grad - exact_grad).abs().max() < 0.2 * exact_grad.abs().max()


def test_cached_states_equal_full_ones(small: Trunk):
    """Guards against a cache that is off by one step: every state of ten single steps."""
    tokens = torch.randint(0, 20, (4, 20), generator=generator(0, "probe"))
    full, cache = small(tokens).normed, small.new_cache()
    pieces = [small(tokens[:, :10], cache=cache), *(small(tokens[:, i : i + 1], cache=cache) for i in range(10, 20))]
    assert_close(torch.cat([piece.normed for piece in pieces], 1), full, atol=1e-5, rtol=1e-4)
    pre_norm = torch.cat([piece.pre_norm for piece in pieces], 1)
    assert_close(small.norm(pre_norm), full, atol=1e-5, rtol=1e-4)


def test_a_state_does_not_depend_on_later_tokens(small: Trunk):
    tokens = torch.randint(0, 20, (2, 12), generator=generator(0, "probe"))
    other = tokens.clone()
    other[:, 7] = (other[:, 7] + 1) % 20
    before, after = small(tokens).normed, small(other).normed
    assert_close(before[:, :7], after[:, :7], atol=1e-6, rtol=0)
    assert ((before[:, 7:] - after[:, 7:]).abs().amax(-1) > 1e-6).all()


def test_embeddings_can_be_given(small: Trunk):
    tokens = torch.randint(0, 20, (2, 6), generator=generator(0, "probe"))
    assert torch.equal(small(small.embed(tokens)).normed, small(tokens).normed)


def test_rows_that_begin_alike_are_read_whole(small: Trunk):
    """Guards against a shared beginning going through a cache that takes single tokens only."""
    tokens = torch.randint(0, 20, (4, 8), generator=generator(0, "probe"))
    assert torch.equal(small(tokens, shared=(2, 5)).normed, small(tokens).normed)


def test_masks_and_positions_are_refused(small: Trunk):
    """Guards against an objective whose mask a recurrent model ignores without a word."""
    tokens = torch.zeros(1, 4, dtype=torch.long)
    with pytest.raises(ValueError, match="is recurrent and takes no mask: .* needs a Transformer"):
        small(tokens, mask=torch.ones(1, 4, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="is recurrent and takes no positions: .* needs a Transformer"):
        small(tokens, positions=torch.arange(4)[None])


def test_several_tokens_in_a_cached_call_are_refused(small: Trunk):
    """Guards against Mamba-1's cached chunks, which are wrong by 2e-3."""
    tokens, cache = torch.zeros(1, 4, dtype=torch.long), small.new_cache()
    small(tokens, cache=cache)
    with pytest.raises(ValueError, match="one token per cached call after the first, got 2"):
        small(tokens[:, :2], cache=cache)


# ------------------------------------------------------------------ configs


@pytest.mark.parametrize(
    ("preset", "field", "value", "message"),
    [
        ("mamba_tiny", "conv_kernel", 5, r"model.conv_kernel=5: it must be >= 2 and <= 4"),
        ("mamba_tiny", "dt_max", 1e-4, r"model.dt_max=0.0001: it must be >= 0.001"),
        ("mamba_tiny", "state_size", 0, r"model.state_size=0: it must be >= 1"),
        ("mamba_tiny", "embedding_init_std", 0.0, r"model.embedding_init_std=0.0: it must be > 0"),
        ("mamba2_tiny", "head_dim", 48, r"model.head_dim=48 does not divide model.expand \* model.width = 256"),
        ("mamba2_tiny", "A_max", 0.5, r"model.A_max=0.5: it must be >= 1"),
        ("mamba2_tiny", "chunk_size", 0, r"model.chunk_size=0: it must be >= 1"),
    ],
)
def test_impossible_configs_are_refused_in_one_line(model_preset, preset: str, field: str, value: float, message: str):
    with pytest.raises(ConfigError, match=message):
        replace(model_preset(preset), **{field: value})


def test_a_gpu_is_refused_without_its_kernels_before_anything_is_built(model_preset, name: str):
    """Guards against a run on a GPU that falls back to a loop hundreds of times slower."""
    if torch.cuda.is_available():
        pytest.skip("a machine with the kernels would build it")
    with pytest.raises(ValueError, match=r"training.device=cuda: a Mamba needs mamba-ssm"):
        build_trunk(model_preset(name), n_tokens=20, n_positions=40, generator=generator(0, "init"), device=torch.device("cuda"))


def test_presets_are_of_their_kind(model_preset):
    assert type(model_preset("mamba_tiny")) is type(model_preset("mamba")) is MambaModelConfig
    assert type(model_preset("mamba2_tiny")) is Mamba2ModelConfig
    paper = model_preset("mamba")
    assert (paper.n_layers, paper.width, paper.expand, paper.state_size, paper.conv_kernel) == (12, 784, 2, 16, 4)
