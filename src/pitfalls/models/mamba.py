"""Mamba and Mamba-2 from scratch: a config -> transformers' class with the configured initial weights.

The weights are drawn as mamba_ssm draws them, in the sizes that the config gives; transformers' own defaults differ
(embeddings at 0.1, output projections not scaled, the A of Mamba-2 counted instead of drawn).
"""

import math

import torch
from transformers import Mamba2Config, Mamba2ForCausalLM, MambaConfig, MambaForCausalLM, PreTrainedModel

from pitfalls.models import kernels
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
from pitfalls.schemas import Mamba2ModelConfig, MambaModelConfig, RecurrentModelConfig


def build_mamba(
    config: RecurrentModelConfig, *, n_tokens: int, generator: torch.Generator, device: torch.device
) -> PreTrainedModel:
    """A Mamba or Mamba-2 with ``n_tokens`` tied embeddings, on the CPU.

    Raises:
        ValueError: it is for a GPU, and mamba-ssm's kernels are not there; no builder knows this config.
    """
    kernels.install()
    if device.type == "cuda":
        kernels.require_gpu_kernels()
    if isinstance(config, MambaModelConfig):
        lm, draws = _mamba1(config, n_tokens)
    elif isinstance(config, Mamba2ModelConfig):
        lm, draws = _mamba2(config, n_tokens)
    else:
        raise ValueError(f"model={config.name}: no builder for a {type(config).__name__}")
    initialise(lm, _shared_draws(config) | draws, generator)
    mark_undecayed(lm)
    return lm


def mark_undecayed(lm: PreTrainedModel) -> None:
    """Put mamba_ssm's mark, which transformers leaves out and the trainer reads, on decay rates, skips and step biases."""
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
    with torch.random.fork_rng():
        lm = MambaForCausalLM(MambaConfig(**_shared(config, n_tokens), time_step_rank=rank))
    return lm, {
        r"\.x_proj\.weight$": uniform_fan_in(config.projection_init_gain),
        r"\.dt_proj\.weight$": uniform_fan_in(config.projection_init_gain),
        r"\.dt_proj\.bias$": time_step_bias(config.dt_min, config.dt_max),
        r"\.A_log$": log_counting,
    }


def _mamba2(config: Mamba2ModelConfig, n_tokens: int) -> tuple[PreTrainedModel, dict[str, Draw]]:
    heads = config.expand * config.width // config.head_dim
    with torch.random.fork_rng():
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
