"""GPT-2 from scratch: a config -> transformers' class with the configured initial weights."""

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from pitfalls.models.cpu.attention import for_device
from pitfalls.models.initialise import Draw, constant, initialise, normal
from pitfalls.models.last_block import run_from
from pitfalls.models.masks import causal_mask
from pitfalls.schemas import GPT2ModelConfig


def build_gpt2(
    config: GPT2ModelConfig,
    *,
    n_tokens: int,
    n_positions: int,
    generator: torch.Generator,
    device: torch.device,
    n_blocks: int | None = None,
) -> GPT2LMHeadModel:
    """A GPT-2 with ``n_tokens`` tied embeddings and ``n_positions`` learned positions, on the CPU.

    ``n_blocks`` of its ``n_layers``, by default all; their initial weights are those of the whole depth.
    """
    sizes = config if n_blocks is None else replace(config, n_layers=n_blocks)
    with torch.random.fork_rng():  # the constructor draws from the global generator; every weight is drawn again below
        lm = GPT2LMHeadModel(gpt2_config(sizes, n_tokens, n_positions, for_device(device)))
    initialise(lm, initial_weights(config), generator)
    return lm


def initial_weights(config: GPT2ModelConfig) -> dict[str, Draw]:
    """What each parameter is drawn from, by name."""
    residual = config.weight_init_std
    if config.scaled_residual_init:
        residual /= math.sqrt(2 * config.n_layers)
    return {
        r"\.c_proj\.weight$": normal(residual),
        r"\.wpe\.weight$": normal(config.position_init_std),
        r"\.(wte|c_attn|c_fc)\.weight$": normal(config.weight_init_std),
        r"\.bias$": constant(0.0),
        r"\.ln_\w+\.weight$": constant(1.0),
    }


def gpt2_config(config: GPT2ModelConfig, n_tokens: int, n_positions: int, attention: str) -> GPT2Config:
    """The sizes in transformers' terms, without dropout."""
    return GPT2Config(
        vocab_size=n_tokens,
        n_positions=n_positions,
        n_embd=config.width,
        n_layer=config.n_layers,
        n_head=config.n_heads,
        n_inner=config.mlp_ratio * config.width,
        activation_function=config.activation,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation=attention,
    )


class Block(nn.Module):
    """One GPT-2 block by itself, without positions: what an objective puts on a trunk's states."""

    def __init__(self, config: GPT2ModelConfig, *, generator: torch.Generator, device: torch.device) -> None:
        super().__init__()
        lm = build_gpt2(config, n_tokens=1, n_positions=1, generator=generator, device=device, n_blocks=1)
        self.block = lm.transformer.h[0]

    def forward(self, states: Float[Tensor, "B T D"], first: int = 0) -> Float[Tensor, "B K D"]:
        """The states after it at the T - first = K positions from ``first`` on; each attends to itself and to those before it."""
        length = states.shape[1]
        return run_from(self.block, states, None, causal_mask(length - first, length, states.dtype, states.device), first)
