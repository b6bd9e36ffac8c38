"""Any architecture of transformers from scratch: its initial weights, its cache, and what is refused before any compute."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from pitfalls.experiment.build import build
from pitfalls.experiment.config import load_config, resolve, run_dir_of, write_config
from pitfalls.experiment.hydra_app import compose
from pitfalls.models import device_memory
from pitfalls.models.causal_lm import check_causal_lm, describe
from pitfalls.models.hf_internals import attention_name
from pitfalls.models.trunk import Trunk
from pitfalls.schemas import CausalLMModelConfig, ConfigError
from pitfalls.seeding import generator
from tests.conftest import CPU, model_preset
from tests.small_models import SIZES, small_preset

PRESETS = pytest.mark.parametrize("name", SIZES)
FRESH_VECTORS = (".A_log",)
"""Vectors that the class of the hybrid draws at random. It sets all others."""


def of_type(model_type: str, **sizes: object) -> CausalLMModelConfig:
    """Return the config of an architecture with sizes of its own."""
    return small_preset("llama_tiny", model_type=model_type, sizes=sizes)


# ------------------------------------------------------------------ sizes


@PRESETS
def test_presets_have_the_size_of_the_trunk_of_the_bench(make_trunk, name: str):
    """Guards against a class's own default where a preset forgot a size: the head_dim of Qwen3 is 128 for any width."""
    slim, own = (sum(p.numel() for p in make_trunk(config=model_preset(n)).parameters()) for n in ("gpt_slim", name))
    assert 0.9 < own / slim < 1.15


@PRESETS
def test_embeddings_are_tied_unless_the_sizes_say_otherwise(make_trunk, name: str):
    lm = make_trunk(config=small_preset(name)).lm
    assert lm.get_input_embeddings().weight is lm.get_output_embeddings().weight
    preset = small_preset(name)
    lm = make_trunk(config=preset, sizes=preset.sizes | {"tie_word_embeddings": False}).lm
    assert lm.get_input_embeddings().weight is not lm.get_output_embeddings().weight
    assert not torch.equal(lm.get_input_embeddings().weight, lm.get_output_embeddings().weight)


def test_dropout_is_off_and_the_fast_attention_is_chosen(make_trunk):
    """Guards against the dropout of 0.1 that transformers' GPT-2 has by default."""
    trunk = make_trunk(config=of_type("gpt2", n_embd=20, n_layer=2, n_head=2))
    assert [module.p for module in trunk.modules() if isinstance(module, nn.Dropout) and module.p] == []
    assert attention_name(trunk.lm) == "matmul"


# ------------------------------------------------------------------ initial weights


@PRESETS
@pytest.mark.parametrize("scaled", [True, False])
def test_every_group_of_weights_has_its_spread(make_trunk, name: str, scaled: bool):
    """Guards against the class's own 0.02, a residual init that matches no name, and a group that nobody looks at."""
    trunk = make_trunk(config=model_preset(name), weight_init_std=0.03, scaled_residual_init=scaled)
    residual = 0.03 / math.sqrt(2 * 6) if scaled else 0.03
    n_scaled = 0
    for parameter_name, values in trunk.lm.named_parameters():
        if values.dim() == 2:
            is_output = parameter_name.endswith(("o_proj.weight", "down_proj.weight", "out_proj.weight"))
            expected = residual if is_output else 0.03
            n_scaled += is_output
            assert values.std().item() == pytest.approx(expected, rel=5 / math.sqrt(2 * values.numel())), parameter_name
            assert values.mean().abs().item() < 5 * expected / math.sqrt(values.numel()), parameter_name
        elif parameter_name.endswith("A_log"):
            assert ((values.exp() >= 0.01) & (values.exp() <= 16)).all()
        elif values.dim() == 1:
            assert values.unique().tolist() in ([0.0], [1.0]), parameter_name
        else:
            assert parameter_name.endswith("conv1d.weight")
    assert n_scaled == 12


@pytest.mark.parametrize("scaled", [True, False])
def test_a_class_with_a_scaled_init_of_its_own_is_scaled_once_or_not_at_all(make_trunk, scaled: bool):
    """Guards against the weights of transformers' GPT-2, which are scaled already, scaled a second time."""
    config = of_type("gpt2", n_embd=64, n_layer=8, n_head=2)
    lm = make_trunk(config=config, weight_init_std=0.03, scaled_residual_init=scaled).lm
    values = torch.cat([block.mlp.c_proj.weight.flatten() for block in lm.transformer.h])
    assert values.std().item() == pytest.approx(0.03 / math.sqrt(2 * 8) if scaled else 0.03, rel=0.02)


@PRESETS
def test_weights_depend_on_the_seed_alone(make_trunk, name: str):
    """Guards against weights that the class draws from the global generator: it is in another state each time here."""
    config = small_preset(name)
    torch.manual_seed(0)
    first = make_trunk(0, config).state_dict()
    state = torch.get_rng_state()
    make_trunk(3, config)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    again, other = make_trunk(0, config).state_dict(), make_trunk(1, config).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    same = [key for key in first if torch.equal(first[key], other[key])]
    assert [key for key in same if first[key].dim() > 1 or key.endswith(FRESH_VECTORS)] == []


def test_a_recurrence_is_not_decayed(make_trunk):
    """Guards against weight decay that pulls decay rates to one value."""
    trunk = make_trunk(config=small_preset("qwen3_next_tiny"))
    marked = {n.rpartition(".")[2] for n, p in trunk.named_parameters() if getattr(p, "_no_weight_decay", False)}
    assert marked == {"A_log", "dt_bias"}


def test_time_steps_keep_the_range_of_the_class(make_trunk):
    """Guards against a Mamba whose time steps start with the standard deviation of any other matrix."""
    config = of_type("falcon_mamba", hidden_size=20, num_hidden_layers=2, state_size=4, time_step_rank=4)
    weights = dict(make_trunk(config=config, weight_init_std=0.01).lm.named_parameters())
    steps = [p for name, p in weights.items() if name.endswith("dt_proj.weight")]
    assert len(steps) == 2
    assert all(0.1 < p.abs().max() <= 4**-0.5 for p in steps)


def test_a_block_without_a_known_output_projection_is_refused(make_trunk, monkeypatch: pytest.MonkeyPatch):
    """Guards against a scaled residual init that silently scales nothing, as in the paper's code."""
    monkeypatch.setattr("pitfalls.models.hf_internals.RESIDUAL_OUTPUTS", ("other",))
    with pytest.raises(
        ConfigError,
        match="model.scaled_residual_init=true: a block of LlamaForCausalLM has no output projection under a known name .*",
    ):
        make_trunk(config=small_preset("llama_tiny"))
    make_trunk(config=small_preset("llama_tiny", scaled_residual_init=False))


# ------------------------------------------------------------------ what it computes


@PRESETS
def test_cached_tokens_equal_uncached_ones(make_trunk, name: str):
    """Guards against a state of the recurrence or the convolution that a cached step reads too early or too late."""
    trunk: Trunk = make_trunk(config=small_preset(name, weight_init_std=0.3)).eval()
    tokens = torch.randint(0, 20, (3, 24), generator=generator(0, "probe"))
    with torch.no_grad():
        whole = trunk(tokens).normed
        cache = trunk.new_cache(24)
        parts = [trunk(tokens[:, :9], cache=cache).normed]
        parts += [trunk(tokens[:, i : i + 1], cache=cache).normed for i in range(9, 24)]
    assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-4)
    assert (whole[:, 1:] - whole[:, :-1]).abs().amax(-1).min() > 1e-2, "states that are all alike would prove nothing"


@PRESETS
def test_eight_graphs_are_learned(make_trunk, batch, name: str):
    """Guards against a trunk that computes well and does not learn, such as one whose blocks get no gradient."""
    trunk: Trunk = make_trunk(config=small_preset(name, weight_init_std=0.1)).train()
    optimizer = torch.optim.AdamW(trunk.parameters(), lr=1e-2, weight_decay=0.0)
    tokens, n = torch.cat([batch.prompt, batch.target], 1), batch.prompt.shape[1]
    before = {key: p.detach().clone() for key, p in trunk.named_parameters()}
    for _ in range(200):
        logits = trunk.logits(trunk(tokens[:, :-1], first=n - 1).normed)
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits.flatten(0, 1), batch.target.flatten()).backward()
        optimizer.step()
        if torch.equal(logits.argmax(-1), batch.target):
            break
    assert torch.equal(logits.argmax(-1), batch.target)
    assert [key for key, p in trunk.named_parameters() if torch.equal(p, before[key])] == []


# ------------------------------------------------------------------ the config


def test_the_command_line_changes_and_adds_sizes(tmp_path):
    """Guards against sizes that are lost on the way to the run's config, its name or its weights."""
    options = ["model=llama_tiny", "task=g2_3", f"runs_dir='{tmp_path}'"]
    configs = [resolve(compose([*options, *more])) for more in ([], ["model.sizes.hidden_size=48", "+model.sizes.head_dim=8"])]
    assert configs[1].model.sizes == configs[0].model.sizes | {"hidden_size": 48, "head_dim": 8}
    assert run_dir_of(configs[0]) != run_dir_of(configs[1])
    attention = build(configs[1]).trunk.lm.model.layers[0].self_attn
    assert attention.q_proj.weight.shape == (4 * 8, 48)


def test_a_written_config_is_read_back(tmp_path):
    """Guards against lists and mappings among the sizes that the run's own files cannot hold."""
    rope = "+model.sizes.rope_parameters={rope_type:default,rope_theta:5e5}"
    config = resolve(compose(["model=qwen3_next_tiny", "task=g2_3", rope]))
    write_config(config, tmp_path / "resolved_config.json")
    assert load_config(tmp_path) == config
    assert build(config).trunk.lm.config.rope_parameters["rope_theta"] == 5e5


WRONG = {
    "model.model_type=lama": "model.model_type=lama: no causal language model of the installed transformers; .* llama",
    "model.model_type=gemma3": "model.model_type=gemma3: it is made of several models; .* gemma3_text",
    "+model.sizes.hiden_size=96": "model.sizes.hiden_size: LlamaConfig .* has no such key; did you mean hidden_size",
    "+model.sizes.auto_map={AutoModel:a.B}": "model.sizes.auto_map: LlamaConfig of transformers has no such key; choose among ",
    "+model.sizes.vocab_size=9": "model.sizes.vocab_size=9: the task or another key of the model sets it; leave it out",
    "+model.sizes.max_position_embeddings=9": "model.sizes.max_position_embeddings=9: the task or another key",
    "+model.sizes.bos_token_id=9": "model.sizes.bos_token_id=9: the task or another key",
    "+model.sizes.attention_dropout=0.5": "model.sizes.attention_dropout=0.5: the task or another key",
    "model.model_type=gpt2": "model.sizes.hidden_size: GPT2Config of transformers has another name for it; write n_embd",
    "model.sizes.hidden_size=96.5": "model.sizes.hidden_size=96.5: expected int, got float; give a value of that type",
    "model.sizes.hidden_size=wide": "model.sizes.hidden_size=wide: expected int, got str",
    "model.sizes.hidden_size=null": "model.sizes.hidden_size=null: expected int, got NoneType",
    "model.sizes.hidden_size=10000000": "model.sizes.hidden_size=10000000: it must be >= -1,000,000 and <= 1,000,000",
    "model.sizes.num_hidden_layers=2000": "model.sizes.num_hidden_layers=2000: it must be >= 1 and <= 1,000",
    "model.sizes.num_attention_heads=5": "model.model_type=llama: the sizes do not go together .*; change model.sizes",
    "model.sizes.num_key_value_heads=3": "num_key_value_heads=3 does not divide num_attention_heads=4; change one of them",
    "+model.sizes.hidden_act=swish_glu": "the sizes do not go together .KeyError: 'swish_glu'.; change model.sizes",
    "model.sizes=96": "model.sizes: it must be a mapping of keys to values, not int; write model.sizes.KEY=VALUE",
    "model.sizes.head_dim=8": "model.sizes.head_dim: there is no such key; write .model.sizes.head_dim=VALUE to add",
    "model.sizes.hiden_size=8": "model.sizes.hiden_size: there is no such key; did you mean model.sizes.hidden_size",
    "model.weight_init_std=0": "model.weight_init_std=0.0: it must be > 0",
}


@pytest.mark.parametrize("override", WRONG)
def test_what_is_wrong_is_one_line_before_any_compute(override: str):
    """Guards against a key that transformers keeps without a word, and a size that it refuses in the middle of a sweep."""
    with pytest.raises(ConfigError, match=WRONG[override]) as caught:
        resolve(compose(["model=llama_tiny", override]))
    assert "\n" not in str(caught.value)


def test_a_model_that_does_not_fit_is_refused_before_memory_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device_memory, "memory_bytes", lambda device: 2.0**30)
    large = ["model=llama_tiny", "model.sizes.hidden_size=100000", "model.sizes.num_hidden_layers=1000"]
    with pytest.raises(ConfigError, match=r"model.model_type=llama: training about .* weights needs .* this machine has 1 GiB"):
        resolve(compose(large))
    resolve(compose(["model=llama_tiny"]))
    whole = describe(small_preset("llama_tiny"), n_tokens=20, n_positions=40)
    assert 1000 < device_memory.count_weights(whole, 1000) < device_memory.count_weights(whole, math.inf) / 2, "it stops early"


def test_a_hybrid_is_known_to_be_recurrent_before_it_is_built():
    """Guards against a sweep that trains for hours before a job of it is refused."""
    kinds = {name: check_causal_lm(small_preset(name), n_tokens=20, n_positions=40, device=CPU) for name in SIZES}
    assert kinds == {"llama_tiny": False, "qwen3_tiny": False, "qwen3_next_tiny": True}
    with pytest.raises(
        ConfigError, match="objective=masked_diffusion sets masks of its own, and model=qwen3_next_tiny is recurrent"
    ):
        resolve(compose(["model=qwen3_next_tiny", "objective=masked_diffusion"]))


def test_an_architecture_that_cannot_be_a_trunk_is_one_line(config):
    """Guards against a convolution that no mask hides from: hidden tokens would leak."""
    model = of_type("lfm2", **SIZES["llama_tiny"], layer_types=["conv", "full_attention"])
    config.model = model
    with pytest.raises(
        ConfigError, match="model.model_type=lfm2: a Lfm2ForCausalLM cannot be a trunk: a token that a mask hides"
    ):
        build(config)
    config.model = of_type("opt", hidden_size=20, num_hidden_layers=2, ffn_dim=40, num_attention_heads=2, word_embed_proj_dim=20)
    with pytest.raises(ConfigError, match="model.model_type=opt: a OPTForCausalLM has no final norm under a known name"):
        build(config)
