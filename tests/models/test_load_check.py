"""The check of a loaded model: a trunk computes what its model computes, or one line says what differs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM as Auto
from transformers import (
    BambaConfig,
    BloomConfig,
    Cohere2Config,
    CohereConfig,
    FalconMambaConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    GptOssConfig,
    GraniteConfig,
    JambaConfig,
    Lfm2Config,
    LlamaConfig,
    Mamba2Config,
    MambaConfig,
    MistralConfig,
    OPTConfig,
    Qwen3Config,
    Qwen3NextConfig,
    RwkvConfig,
)

from pitfalls.models import load_check
from pitfalls.models.hf_internals import attention_name, attention_set_to
from pitfalls.models.load_check import check_trunk_reads
from pitfalls.models.pretrained import load_pretrained
from pitfalls.models.trunk import Trunk
from pitfalls.schemas import ConfigError, PretrainedModelConfig
from pitfalls.seeding import forked_rng, generator

V, N_POSITIONS, N_TASK = 48, 30, 20
SIZES: dict[str, Any] = {"vocab_size": V, "num_hidden_layers": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SIZES |= {"max_position_embeddings": 64}
DENSE: dict[str, Any] = SIZES | {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "head_dim": 8,
}
EXPERTS: dict[str, Any] = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2}
SPACE: dict[str, Any] = {"state_size": 8, "hidden_size": 32}
HYBRID: dict[str, Any] = {"mamba_d_state": 8, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8}

FAMILIES: dict[str, Any] = {
    "gpt2": GPT2Config(vocab_size=V, n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "pythia": GPTNeoXConfig(**SIZES, hidden_size=32, num_attention_heads=4, intermediate_size=48),
    "llama": LlamaConfig(**DENSE),
    "mistral": MistralConfig(**DENSE, sliding_window=64),
    "qwen3": Qwen3Config(**DENSE),
    "gemma2": Gemma2Config(**DENSE, final_logit_softcapping=2.0, attn_logit_softcapping=2.0, sliding_window=64),
    "cohere": CohereConfig(**DENSE, logit_scale=0.25),
    "cohere2": Cohere2Config(**DENSE, logit_scale=0.25, sliding_window=64),
    "granite": GraniteConfig(**DENSE, logits_scaling=8.0),
    "gpt_oss": GptOssConfig(**DENSE, **EXPERTS, sliding_window=64),
    "mamba": MambaConfig(**SIZES, **SPACE),
    "mamba2": Mamba2Config(**SIZES, **SPACE, num_heads=8, head_dim=8, n_groups=1, chunk_size=8),
    "falcon_mamba": FalconMambaConfig(**SIZES, **SPACE),
    "qwen3_next": Qwen3NextConfig(
        **DENSE,
        **EXPERTS,
        layer_types=["linear_attention", "full_attention"],
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
    ),
}
"""Families that can be a trunk."""
REFUSED: dict[str, tuple[Any, str]] = {
    "a sliding window that is too short": (
        MistralConfig(**DENSE, sliding_window=8),
        "cannot be a trunk: its logits are not the model's own .*; take another model",
    ),
    "a convolution that no mask hides from": (
        Lfm2Config(**DENSE, layer_types=["conv", "full_attention"]),
        "a token that a mask hides changes what later tokens predict",
    ),
    "no positions": (BloomConfig(vocab_size=V, hidden_size=32, n_layer=2, n_head=4), "BloomForCausalLM"),
    "a recurrence of its own": (RwkvConfig(vocab_size=V, hidden_size=32, num_hidden_layers=2, attention_hidden_size=32), "Rwkv"),
    "an unknown final norm": (
        OPTConfig(vocab_size=V, hidden_size=32, num_hidden_layers=2, ffn_dim=48, num_attention_heads=4, word_embed_proj_dim=32),
        "OPTForCausalLM",
    ),
}
"""Families that cannot, and a part of the line that says so."""
EITHER: dict[str, Any] = {
    "bamba": BambaConfig(**DENSE, **HYBRID, attn_layer_indices=[1]),
    "jamba": JambaConfig(**DENSE, **EXPERTS, attn_layer_offset=1, attn_layer_period=2, mamba_d_state=8, mamba_dt_rank=4),
}
"""Hybrids of a recurrence and attention: they work, or one line says why not."""


@pytest.fixture
def loaded(tmp_path: Path) -> Callable[[Any], Trunk]:
    """A function that saves a random model with large weights, and loads it as a user's folder."""

    def load(config: Any) -> Trunk:
        with forked_rng():
            torch.manual_seed(0)
            lm = Auto.from_config(config)
        with torch.no_grad():  # so large that a cap or a wrong scale changes the numbers
            for name, parameter in lm.named_parameters():
                if parameter.dim() > 1 and not name.endswith("A_log"):
                    parameter.mul_(5.0)
        lm.save_pretrained(tmp_path)
        source = PretrainedModelConfig(
            name="m",
            architecture="pretrained",
            init_from=None,
            source=str(tmp_path),
            revision=None,
            dtype="original",
            new_tokens=False,
        )
        sizes: dict[str, Any] = {"n_tokens": N_TASK, "n_positions": N_POSITIONS, "generator": generator(0, "init")}
        return load_pretrained(source, **sizes, device=torch.device("cpu"), token_ids=tuple(range(3, 3 + N_TASK)))

    return load


def check(trunk: Trunk, needs: tuple[str, ...] = ()) -> None:
    check_trunk_reads(trunk, N_POSITIONS, N_TASK, "model.source=DIR", needs)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_a_trunk_and_says_what_its_model_says(loaded, family: str):
    """Guards against logits without the cap or the scale of the model, and against caps of attention that are left out."""
    trunk = loaded(FAMILIES[family]).eval()
    check(trunk, () if trunk.recurrent else ("masks", "positions"))
    tokens = torch.randint(N_TASK, (2, N_POSITIONS), generator=generator(1, "data"))
    with torch.no_grad():
        ours = trunk.logits(trunk(tokens).normed)
        with attention_set_to(trunk.lm, "eager" if not trunk.recurrent else attention_name(trunk.lm)):
            own = trunk.lm(input_ids=trunk.token_ids[tokens], use_cache=False).logits[..., trunk.token_ids]
    torch.testing.assert_close(ours, own, atol=2e-3 * own.std().item(), rtol=1e-3)


@pytest.mark.parametrize("family", REFUSED)
def test_a_family_that_differs_is_one_line(loaded, family: str):
    config, line = REFUSED[family]
    with pytest.raises(ConfigError, match=line) as caught:
        check(loaded(config))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("model.source=")


@pytest.mark.parametrize("family", EITHER)
def test_a_hybrid_works_or_is_one_line(loaded, family: str):
    """Guards against a traceback of a Bamba: "any causal LM" held for the families that had been tried."""
    try:
        check(loaded(EITHER[family]))
    except ConfigError as error:
        message = str(error)
    else:
        return
    assert message.startswith("model.source=DIR: a ")
    assert "\n" not in message


# ------------------------------------------------------------------ what the check finds


def test_a_change_after_the_unembedding_is_found(loaded, monkeypatch: pytest.MonkeyPatch):
    """Guards against loss, entropy and sampling that are wrong while the greedy answer survives."""
    trunk = loaded(FAMILIES["llama"])
    forward = type(trunk.lm).forward

    def capped(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = forward(self, *args, **kwargs)
        output.logits = 50 * torch.tanh(output.logits / 50)  # hardly visible at the logits of a small model
        return output

    monkeypatch.setattr(type(trunk.lm), "forward", capped)
    trunk.lm.lm_head.weight.data.mul_(0.02)
    with pytest.raises(ConfigError, match="changes its logits after the unembedding"):
        check(trunk)


def test_a_mask_that_hides_nothing_is_found(loaded, monkeypatch: pytest.MonkeyPatch):
    """Guards against objectives whose hidden tokens leak."""
    trunk = loaded(FAMILIES["llama"])
    monkeypatch.setattr(Trunk, "_additive", lambda self, mask, positions, n, n_all, like: None)
    with pytest.raises(ConfigError, match="a token that a mask hides changes what later tokens predict"):
        check(trunk)


def test_an_attention_that_stays_causal_is_found_for_objectives_that_set_masks(loaded):
    """Guards against GPT-Neo under a method that looks ahead: it adds a causal mask of its own to ours."""
    config = GPTNeoConfig(vocab_size=V, hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global"], 2]])
    trunk = loaded(config)
    check(trunk)
    with pytest.raises(ConfigError, match="its attention is causal whatever mask the objective sets"):
        check(trunk, ("masks",))


def test_a_leak_is_found_while_weights_are_small(loaded):
    """Guards against an untrained model that passes because its blocks add next to nothing yet. Its weights stay as they are."""
    trunk = loaded(REFUSED["a convolution that no mask hides from"][0])
    with torch.no_grad():
        for parameter in trunk.lm.parameters():
            parameter.mul_(0.02 if parameter.dim() == 2 else 1)
    check(trunk)
    before = {name: values.clone() for name, values in trunk.state_dict().items()}
    with pytest.raises(ConfigError, match="a token that a mask hides changes what later tokens predict"):
        check_trunk_reads(trunk, N_POSITIONS, N_TASK, "model.source=DIR", (), untrained=True)
    assert all(torch.equal(before[name], values) for name, values in trunk.state_dict().items())


def test_positions_that_are_not_taken_are_found_for_objectives_that_set_them(loaded, monkeypatch: pytest.MonkeyPatch):
    trunk = loaded(FAMILIES["llama"])
    forward = type(trunk.lm.base_model).forward

    def ignores(self: Any, *args: Any, position_ids: Any = None, **kwargs: Any) -> Any:
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(type(trunk.lm.base_model), "forward", ignores)
    check(trunk, ("masks",))
    with pytest.raises(ConfigError, match="it does not take the positions that the objective sets"):
        check(trunk, ("positions",))


def test_a_cache_that_forgets_is_found(loaded, monkeypatch: pytest.MonkeyPatch):
    trunk = loaded(FAMILIES["llama"])
    update = load_check.Trunk.new_cache

    def forgetful(self: Trunk, n_tokens: int | None = None) -> Any:
        cache = update(self, n_tokens)
        layer = cache.layers[0]
        whole = layer.update
        layer.update = lambda keys, values, *a, **k: whole(keys * 0.5, values, *a, **k)
        return cache

    monkeypatch.setattr(Trunk, "new_cache", forgetful)
    with pytest.raises(ConfigError, match="decoding with a cache has other logits than without"):
        check(trunk)


def test_the_check_leaves_the_trunk_as_it_was(loaded):
    """Guards against a model that stays in eval mode, without its forward, or with another attention."""
    trunk = loaded(FAMILIES["gemma2"]).train()
    before, attention = {k: v.clone() for k, v in trunk.state_dict().items()}, attention_name(trunk.lm)
    check(trunk)
    assert trunk.training
    assert attention_name(trunk.lm) == attention == "eager"
    assert not trunk.lm.base_model._forward_hooks
    assert all(torch.equal(before[k], v) for k, v in trunk.state_dict().items())


def test_a_model_that_raises_an_error_is_one_line(loaded, monkeypatch: pytest.MonkeyPatch):
    """Guards against a traceback from the code of an architecture that nobody tried."""
    trunk = loaded(FAMILIES["llama"])
    monkeypatch.setattr(trunk, "forward", lambda *_, **__: 1 / 0)
    line = r"model.source=DIR: a LlamaForCausalLM does not run as a trunk \(ZeroDivisionError: division by zero\); take another"
    with pytest.raises(ConfigError, match=line):
        check(trunk)
