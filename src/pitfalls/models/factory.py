"""Functions that build a trunk from its config, and the blocks and encoders that an objective adds to it."""

from dataclasses import replace

import torch
from torch import nn

from pitfalls.models.causal_lm import build_causal_lm
from pitfalls.models.gpt2 import Block, build_gpt2
from pitfalls.models.mamba import build_mamba
from pitfalls.models.pretrained import load_pretrained
from pitfalls.models.trunk import Trunk
from pitfalls.schemas import CausalLMModelConfig, GPT2ModelConfig, ModelConfig, PretrainedModelConfig, RecurrentModelConfig


def build_trunk(
    config: ModelConfig,
    *,
    n_tokens: int,
    n_positions: int,
    generator: torch.Generator,
    device: torch.device,
    token_ids: tuple[int, ...] | None = None,
) -> Trunk:
    """Return the trunk of a model config, on ``device``. It is in fp32, unless a pretrained model's config sets another dtype.

    Args:
        config: the config of the model.
        n_tokens: size of the task's vocabulary.
        n_positions: the longest sequence of the task under any objective, in tokens.
        generator: draws the initial weights.
        device: the device of the trunk.
        token_ids: the pretrained model's token for each token of the task (see `pitfalls.tasks.vocabulary`).

    Raises:
        ValueError: no builder knows this config.
        ConfigError: the model cannot be made or loaded, or reads too few positions.
    """
    if isinstance(config, GPT2ModelConfig):
        lm = build_gpt2(config, n_tokens=n_tokens, n_positions=n_positions, generator=generator, device=device)
        return Trunk(lm).to(device)
    if isinstance(config, RecurrentModelConfig):
        return Trunk(build_mamba(config, n_tokens=n_tokens, generator=generator, device=device)).to(device)
    if isinstance(config, CausalLMModelConfig):
        return build_causal_lm(config, n_tokens=n_tokens, n_positions=n_positions, generator=generator, device=device).to(device)
    if isinstance(config, PretrainedModelConfig):
        return load_pretrained(
            config, n_tokens=n_tokens, n_positions=n_positions, generator=generator, device=device, token_ids=token_ids
        ).to(device)
    raise ValueError(f"model={config.name}: no builder for a {type(config).__name__}")


def build_block(config: ModelConfig, trunk: Trunk, *, generator: torch.Generator, device: torch.device) -> nn.Module:
    """Return a causal GPT-2 block for a trunk's states [B,T,D].

    Its config is that of the trunk if that is a GPT-2 from scratch. Otherwise it has the trunk's width and GPT-2's defaults. Its
    ``weight_init_std`` is that of an architecture of transformers from scratch, if the trunk is one.
    """
    if not isinstance(config, GPT2ModelConfig):
        config = GPT2ModelConfig(
            name="block",
            architecture="gpt2",
            init_from=None,
            n_layers=trunk.n_layers,
            width=trunk.width,
            n_heads=trunk.n_heads,
            mlp_ratio=4,
            activation="gelu",
            weight_init_std=config.weight_init_std if isinstance(config, CausalLMModelConfig) else 0.02,
            position_init_std=0.02,
            scaled_residual_init=True,
        )
    return Block(config, generator=generator, device=device)


def build_encoder(config: ModelConfig, *, n_positions: int, generator: torch.Generator, device: torch.device) -> Trunk:
    """Return a trunk of the same kind without embeddings and unembedding. It takes embeddings [B,T,D]."""
    if isinstance(config, PretrainedModelConfig):
        config = replace(config, new_tokens=False)
    encoder = build_trunk(config, n_tokens=1, n_positions=n_positions, generator=generator, device=device)
    encoder.lm.set_input_embeddings(nn.Identity())
    encoder.lm.set_output_embeddings(nn.Identity())
    return encoder
