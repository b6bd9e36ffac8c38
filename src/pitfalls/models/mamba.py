"""Mamba and Mamba-2 from scratch: transformers' classes with the configured sizes and initial weights.

The weights are drawn as in mamba_ssm. transformers' own defaults differ: embeddings have a standard deviation of 0.1, output
projections are not scaled, and the A of Mamba-2 is 1, 2, 3, ... instead of random.
"""

import importlib
import math

import torch
from transformers import Mamba2Config, Mamba2ForCausalLM, MambaConfig, MambaForCausalLM, PreTrainedModel

from pitfalls.models.hf_internals import dispatch_mamba_kernels
from pitfalls.models.initialise import (
    Draw,
    constant,
    initialise,
    log_counting,
    log_uniform,
    normal,
    time_step_bias,
    uniform,
    uniform_fan_in,
)
from pitfalls.schemas import ConfigError, Mamba2ModelConfig, MambaModelConfig, RecurrentModelConfig
from pitfalls.seeding import forked_rng

COMPILED_KERNELS = ("selective_scan_cuda", "causal_conv1d_cuda")
"""The compiled modules of mamba-ssm and causal-conv1d. Without them the packages may be imported, but cannot compute."""


def build_mamba(
    config: RecurrentModelConfig, *, n_tokens: int, generator: torch.Generator, device: torch.device
) -> PreTrainedModel:
    """Return a Mamba or Mamba-2 with ``n_tokens`` tied embeddings, on the CPU.

    Raises:
        ConfigError: ``device`` is a GPU and mamba-ssm's kernels cannot be imported, or no builder knows this config.
    """
    dispatch_mamba_kernels()
    if device.type == "cuda":
        require_gpu_kernels()
    if isinstance(config, MambaModelConfig):
        lm, draws = _mamba1(config, n_tokens)
    elif isinstance(config, Mamba2ModelConfig):
        lm, draws = _mamba2(config, n_tokens)
    else:
        raise ValueError(f"model={config.name}: no builder for a {type(config).__name__}")
    initialise(lm, _shared_draws(config) | draws, generator)
    mark_undecayed(lm)
    return lm


def require_gpu_kernels() -> None:
    """Raise an error unless mamba-ssm's kernels can be used. On a GPU, transformers' own loop is hundreds of times slower.

    Raises:
        ConfigError: a compiled module cannot be imported.
    """
    for name in COMPILED_KERNELS:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"training.device=cuda: a Mamba needs mamba-ssm with its compiled kernels, and {name} cannot be imported "
                f"({error}); install the extra [cuda] (docs/models.md, On a GPU) or use training.device=cpu"
            ) from None


def mark_undecayed(lm: PreTrainedModel) -> None:
    """Mark the parameters of a Mamba that get no weight decay: decay rates, skip weights and biases of the time step.

    The trainer reads the mark. mamba_ssm sets the same mark, but transformers does not.
    """
    for name, parameter in lm.named_parameters():
        if name.endswith((".A_log", ".D", ".dt_bias")):
            parameter._no_weight_decay = True


def _shared(config: RecurrentModelConfig, n_tokens: int) -> dict[str, object]:
    return {
        "vocab_size": n_tokens,
        "hidden_size": config.width,
        "num_hidden_layers": config.n_layers,
        "state_size": config.state_size,
        "expand": config.expand,
        "conv_kernel": config.conv_kernel,
        "tie_word_embeddings": True,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def _shared_draws(config: RecurrentModelConfig) -> dict[str, Draw]:
    gain = config.projection_init_gain
    return {
        r"\.embeddings\.weight$": normal(config.embedding_init_std),
        r"\.in_proj\.weight$": uniform_fan_in(gain),
        r"\.out_proj\.weight$": uniform_fan_in(gain / math.sqrt(config.n_layers) if config.scaled_residual_init else gain),
        r"\.conv1d\.weight$": uniform_fan_in(gain),
        r"\.conv1d\.bias$": uniform(-gain / math.sqrt(config.conv_kernel), gain / math.sqrt(config.conv_kernel)),
        r"\.D$": constant(1.0),
        r"norm(_f)?\.weight$": constant(1.0),
    }


def _mamba1(config: MambaModelConfig, n_tokens: int) -> tuple[PreTrainedModel, dict[str, Draw]]:
    rank = math.ceil(config.width / 16)
    with forked_rng():
        lm = MambaForCausalLM(MambaConfig(**_shared(config, n_tokens), time_step_rank=rank))
    return lm, {
        r"\.x_proj\.weight$": uniform_fan_in(config.projection_init_gain),
        r"\.dt_proj\.weight$": uniform_fan_in(config.projection_init_gain),
        r"\.dt_proj\.bias$": time_step_bias(config.dt_min, config.dt_max),
        r"\.A_log$": log_counting,
    }


def _mamba2(config: Mamba2ModelConfig, n_tokens: int) -> tuple[PreTrainedModel, dict[str, Draw]]:
    heads = config.expand * config.width // config.head_dim
    with forked_rng():
        lm = Mamba2ForCausalLM(
            Mamba2Config(
                **_shared(config, n_tokens),
                num_heads=heads,
                head_dim=config.head_dim,
                n_groups=1,
                chunk_size=config.chunk_size,
            )
        )
    return lm, {
        r"\.dt_bias$": time_step_bias(config.dt_min, config.dt_max),
        r"\.A_log$": log_uniform(config.A_min, config.A_max),
    }
