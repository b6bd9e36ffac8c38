"""Any causal language model of transformers from scratch, by the name of its architecture and the sizes that a preset states.

A config names a class of the installed transformers and values of its config class. It cannot name code, and nothing is
downloaded.
"""

import difflib
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields

import torch
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    Conv1D,
    PreTrainedConfig,
    PreTrainedModel,
)

from pitfalls.models.device_memory import check_described_fits
from pitfalls.models.hf_internals import (
    CAUSAL_LM_TYPES,
    RESIDUAL_OUTPUTS,
    choose_attention,
    dispatch_mamba_kernels,
    is_stateful,
    quiet,
    residual_outputs,
    switch_off_dropout,
)
from pitfalls.models.mamba import mark_undecayed
from pitfalls.models.trunk import Trunk
from pitfalls.schemas import MAX_LAYERS, CausalLMModelConfig, ConfigError, check_range, printable
from pitfalls.seeding import forked_rng

OURS = ("vocab_size", "max_position_embeddings", "initializer_range", "use_cache")
"""Keys of config classes that follow from the task and from other keys of ours."""
ALSO_OURS = r"_token_id$|drop"
"""A pattern of more such keys: special tokens, of which there are none, and dropout, which is off."""
KEPT_LAYERS = ("dt_proj",)
"""Linear layers that keep the class's own weights: the time steps of a recurrence have to start in a certain range."""


def build_causal_lm(
    config: CausalLMModelConfig, *, n_tokens: int, n_positions: int, generator: torch.Generator, device: torch.device
) -> Trunk:
    """Return the trunk of an architecture with ``n_tokens`` embeddings and no dropout, on the CPU and in fp32.

    The embeddings are tied if the class can tie them, unless the sizes say otherwise. Initial weights follow three rules:

    1. The class draws all weights as it always does, from a seed that ``generator`` draws. Norms, biases, decay rates, time
       steps, convolutions and the weights of experts stay so.
    2. The weight of every linear layer (but ``dt_proj``) and of every embedding is drawn again from ``generator``: normal with
       ``weight_init_std``.
    3. With ``scaled_residual_init``, the weights of `RESIDUAL_OUTPUTS` are divided by sqrt(2 * number of blocks), as in GPT-2.

    Args:
        config: the architecture, its sizes and initial weights.
        n_tokens: size of the vocabulary.
        n_positions: the longest sequence, in tokens.
        generator: draws the initial weights.
        device: the device that the model will run on. The choice of the attention depends on it.

    Raises:
        ConfigError: the architecture or a size is none of transformers, or the sizes do not go together.
    """
    dispatch_mamba_kernels()
    described = describe(config, n_tokens=n_tokens, n_positions=n_positions)
    seed = int(torch.randint(2**62, (), generator=generator))
    with _one_line(config), quiet(), forked_rng(seed=seed):
        lm = AutoModelForCausalLM.from_config(described, trust_remote_code=False)
        trunk = Trunk(lm)
    choose_attention(lm, device)
    switch_off_dropout(lm)
    _initialise(config, lm, generator)
    mark_undecayed(lm)
    return trunk


def check_causal_lm(config: CausalLMModelConfig, *, n_tokens: int, n_positions: int, device: torch.device | None) -> bool:
    """Check an architecture and its sizes without asking for memory, and return whether it is recurrent.

    Args:
        config: the architecture and its sizes.
        n_tokens: size of the vocabulary.
        n_positions: the longest sequence, in tokens.
        device: the device that trains it. None leaves the check of its memory out.

    Raises:
        ConfigError: as `build_causal_lm`, or the device has too little memory.
    """
    described = describe(config, n_tokens=n_tokens, n_positions=n_positions)
    _check_heads(config, described)
    with _one_line(config), quiet():
        check_described_fits(config.as_typed, described, device or torch.device("meta"))
    return is_stateful(MODEL_FOR_CAUSAL_LM_MAPPING[type(described)])


def describe(config: CausalLMModelConfig, *, n_tokens: int, n_positions: int) -> PreTrainedConfig:
    """Return transformers' config of a model. Its keys and the types of its values are checked.

    Args:
        config: the architecture and its sizes.
        n_tokens: size of the vocabulary.
        n_positions: the longest sequence, in tokens.

    Raises:
        ConfigError: the architecture is none of transformers, or a key or a value none of its config class.
    """
    kind = _config_class(config)
    names = {field.name for field in fields(kind)}
    layers = kind.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    check_range(f"model.sizes.{layers}", config.sizes.get(layers), 1, MAX_LAYERS)
    values = (n_tokens, n_positions, config.weight_init_std, True)
    ours = {kind.attribute_map.get(key, key): value for key, value in zip(OURS, values, strict=True)}
    _check_keys(config, kind, names - {field.name for field in fields(PreTrainedConfig)}, set(ours))
    no_tokens = {key: None for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    set_here = {key: value for key, value in (ours | no_tokens | {"tie_word_embeddings": True}).items() if key in names}
    with _one_line(config):
        return kind(**set_here | config.sizes)


def _config_class(config: CausalLMModelConfig) -> type[PreTrainedConfig]:
    """Return transformers' config class of an architecture.

    Raises:
        ConfigError: there is none, or it holds the configs of several models.
    """
    name = config.model_type
    if name not in CAUSAL_LM_TYPES:
        near = difflib.get_close_matches(name, CAUSAL_LM_TYPES, n=3) or ["llama", "qwen3", "qwen3_next"]
        raise ConfigError(
            f"{config.as_typed}: no causal language model of the installed transformers; choose one, such as {', '.join(near)}"
        )
    kind = CONFIG_MAPPING[name]
    if kind.sub_configs:
        texts = [other for other in (f"{name}_text",) if other in CAUSAL_LM_TYPES] or ["llama"]
        raise ConfigError(f"{config.as_typed}: it is made of several models; choose a single one, such as {texts[0]}")
    return kind


def _check_keys(config: CausalLMModelConfig, kind: type[PreTrainedConfig], known: set[str], ours: set[str]) -> None:
    """Refuse keys that the config class lacks, which it would keep without a word, and those that we set."""
    free = sorted(name for name in known - ours if not re.search(ALSO_OURS, name))
    for key in config.sizes:
        name = kind.attribute_map.get(key, key)
        if name in known and name not in free:
            raise ConfigError(
                f"model.sizes.{key}={config.sizes[key]}: the task or another key of the model sets it; leave it out"
            )
        if name not in free:
            near = difflib.get_close_matches(name, free, n=3)
            remedy = f"did you mean {' or '.join(near)}?" if near else f"choose among {', '.join(free)}"
            raise ConfigError(f"model.sizes.{key}: {kind.__name__} of transformers has no such key; {remedy}")
        if name != key:
            raise ConfigError(f"model.sizes.{key}: {kind.__name__} of transformers has another name for it; write {name}")


def _check_heads(config: CausalLMModelConfig, described: PreTrainedConfig) -> None:
    """Refuse heads that cannot share keys and values evenly. Most config classes take them, and the attention then fails."""
    n_heads, n_groups = (getattr(described, key, None) for key in ("num_attention_heads", "num_key_value_heads"))
    if isinstance(n_heads, int) and isinstance(n_groups, int) and (n_groups < 1 or n_heads % n_groups):
        raise ConfigError(
            f"model.sizes.num_key_value_heads={n_groups} does not divide num_attention_heads={n_heads}; change one of them"
        )


@contextmanager
def _one_line(config: CausalLMModelConfig) -> Iterator[None]:
    """Turn every error of transformers about the sizes of a model into one line: its classes may raise anything."""
    try:
        yield
    except ConfigError as error:
        raise error if str(error).startswith("model.") else ConfigError(f"{config.as_typed}: {error}") from None
    except Exception as error:
        said = (str(error).strip() or "no message").splitlines()[-1].strip()
        if found := re.search(r"Field '(\w+)' (expected .*?, got \w+)", said):
            given = config.sizes.get(found[1])
            value = "null" if given is None else printable(str(given), 60)
            raise ConfigError(f"model.sizes.{found[1]}={value}: {found[2]}; give a value of that type") from None
        if not re.match(r"\w+Error: ", said):
            said = f"{type(error).__name__}: {said}"
        raise ConfigError(
            f"{config.as_typed}: the sizes do not go together ({printable(said, 300)}); change model.sizes"
        ) from error


@torch.no_grad()
def _initialise(config: CausalLMModelConfig, lm: PreTrainedModel, generator: torch.Generator) -> None:
    """Draw the weights of linear layers and embeddings, and scale those of `RESIDUAL_OUTPUTS`.

    Raises:
        ConfigError: a block has no layer among them.
    """
    drawn = set()
    for name, module in lm.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding | Conv1D) and name.rpartition(".")[2] not in KEPT_LAYERS:
            if id(module.weight) not in drawn:  # tied weights are drawn once
                module.weight.normal_(0.0, config.weight_init_std, generator=generator)
            drawn.add(id(module.weight))
    if not config.scaled_residual_init:
        return
    outputs = residual_outputs(lm)
    if not all(outputs):
        raise ConfigError(
            f"model.scaled_residual_init=true: a block of {type(lm).__name__} has no output projection under a known name "
            f"({', '.join(RESIDUAL_OUTPUTS)}); set it to false"
        )
    for weight in {id(weight): weight for block in outputs for weight in block}.values():
        weight.div_(math.sqrt(2 * len(outputs)))
