"""GPT-2 from scratch: transformers' class with the configured sizes and initial weights."""

import math
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from pitfalls.models.gpt_conv import GPTConvConfig, GPTConvLMHeadModel
from pitfalls.models.hf_internals import attention_for, blocks, gpt2_block_from
from pitfalls.models.initialise import Draw, constant, initialise, normal
from pitfalls.models.masks import causal_mask
from pitfalls.schemas import GPT2ModelConfig, GPTConvModelConfig
from pitfalls.seeding import forked_rng


def build_gpt2(
    config: GPT2ModelConfig,
    *,
    n_tokens: int,
    n_positions: int,
    generator: torch.Generator,
    device: torch.device,
    n_blocks: int | None = None,
) -> GPT2LMHeadModel:
    """Return a GPT-2 with ``n_tokens`` tied embeddings and ``n_positions`` learned positions, on the CPU.

    Args:
        config: sizes and initial weights.
        n_tokens: size of the vocabulary.
        n_positions: the longest sequence, in tokens.
        generator: draws the initial weights.
        device: the device that the model will run on. The choice of the attention depends on it.
        n_blocks: number of blocks that are built, by default all. The initial weights depend on ``config.n_layers`` alone.
    """
    sizes = config if n_blocks is None else replace(config, n_layers=n_blocks)
    with forked_rng():  # the constructor draws from the global generator; `initialise` draws every weight again
        lm = _untrained(sizes, n_tokens, n_positions)
    lm.set_attn_implementation(attention_for(device))
    initialise(lm, initial_weights(config), generator)
    return lm


def _untrained(config: GPT2ModelConfig, n_tokens: int, n_positions: int) -> GPT2LMHeadModel:
    sizes = gpt2_sizes(config, n_tokens, n_positions)
    if not isinstance(config, GPTConvModelConfig):
        return GPT2LMHeadModel(GPT2Config(**sizes))
    own = {name: getattr(config, name) for name in ("conv_kernel", "qk_norm", "learned_positions")}
    return GPTConvLMHeadModel(GPTConvConfig(**sizes, **own))


def initial_weights(config: GPT2ModelConfig) -> dict[str, Draw]:
    """Return the distribution of each parameter, by a pattern of its name."""
    residual = config.weight_init_std
    if config.scaled_residual_init:
        residual /= math.sqrt(2 * config.n_layers)
    draws = {
        r"\.c_proj\.weight$": normal(residual),
        r"\.(wte|c_attn|c_fc)\.weight$": normal(config.weight_init_std),
        r"\.bias$": constant(0.0),
        r"\.ln_\w+\.weight$": constant(1.0),
    }
    if not isinstance(config, GPTConvModelConfig) or config.learned_positions:
        draws[r"\.wpe\.weight$"] = normal(config.position_init_std)
    if isinstance(config, GPTConvModelConfig):
        draws[r"\.conv\.weight$"] = normal(config.conv_init_std)
        if config.qk_norm:
            draws[r"\.(query|key)_norm\.weight$"] = constant(1.0)
    return draws


def gpt2_sizes(config: GPT2ModelConfig, n_tokens: int, n_positions: int) -> dict[str, Any]:
    """Return the arguments of transformers' `GPT2Config`, without dropout."""
    return {
        "vocab_size": n_tokens,
        "n_positions": n_positions,
        "n_embd": config.width,
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "n_inner": config.mlp_ratio * config.width,
        "activation_function": config.activation,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "bos_token_id": None,
        "eos_token_id": None,
    }


class Block(nn.Module):
    """One GPT-2 block without position embeddings, which an objective puts on a trunk's states."""

    def __init__(self, config: GPT2ModelConfig, *, generator: torch.Generator, device: torch.device) -> None:
        super().__init__()
        lm = build_gpt2(config, n_tokens=1, n_positions=1, generator=generator, device=device, n_blocks=1)
        self.block = blocks(lm)[0]

    def forward(self, states: Float[Tensor, "B T D"], first: int = 0) -> Float[Tensor, "B K D"]:
        """Return the states after the block at the T - first = K positions from ``first`` on. Attention is causal."""
        length = states.shape[1]
        mask = causal_mask(length - first, length, states.dtype, states.device)
        return gpt2_block_from(self.block, states, None, mask, first)
