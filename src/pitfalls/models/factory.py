"""Config -> trunk. The initial weights come from an explicit generator, name by name, never from global state."""

import math
import re

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from pitfalls.models import attention
from pitfalls.models.trunk import Trunk
from pitfalls.schemas import GPT2ModelConfig, ModelConfig


def build_trunk(
    config: ModelConfig, *, n_tokens: int, n_positions: int, generator: torch.Generator, device: torch.device
) -> Trunk:
    """The trunk that a model config describes, in fp32 on ``device``.

    Raises:
        ValueError: no builder knows this config.
    """
    if isinstance(config, GPT2ModelConfig):
        return Trunk(_gpt2(config, n_tokens, n_positions, generator, device)).to(device)
    raise ValueError(f"model={config.name}: no builder for a {type(config).__name__}")


def _gpt2(
    config: GPT2ModelConfig, n_tokens: int, n_positions: int, generator: torch.Generator, device: torch.device
) -> GPT2LMHeadModel:
    with torch.random.fork_rng():  # the constructor draws from the global generator; every weight is drawn again below
        lm = GPT2LMHeadModel(
            GPT2Config(
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
                attn_implementation=attention.register() if device.type == "cpu" else "sdpa",
            )
        )
    residual = config.weight_init_std
    if config.scaled_residual_init:
        residual /= math.sqrt(2 * config.n_layers)
    initialise(
        lm,
        {
            r"\.c_proj\.weight$": residual,
            r"\.wpe\.weight$": config.position_init_std,
            r"\.(wte|c_attn|c_fc)\.weight$": config.weight_init_std,
            r"\.bias$": 0.0,
            r"\.ln_\w+\.weight$": None,
        },
        generator,
    )
    return lm


def initialise(model: nn.Module, stds: dict[str, float | None], generator: torch.Generator) -> None:
    """Draw every parameter from N(0, std^2), std given by the pattern that its name matches; None sets it to 1.

    Raises:
        ValueError: a pattern matches no parameter, or a parameter matches not exactly one pattern (in the published
            code a pattern that matched nothing disabled the scaled residual init without a word).
    """
    used = set()
    for name, parameter in model.named_parameters():
        matches = [pattern for pattern in stds if re.search(pattern, name)]
        if len(matches) != 1:
            raise ValueError(f"parameter {name} matches {len(matches)} init patterns of {list(stds)}; it needs exactly one")
        used.add(matches[0])
        std = stds[matches[0]]
        with torch.no_grad():
            if std is None:
                parameter.fill_(1.0)
            elif std == 0.0:
                parameter.zero_()
            else:
                parameter.normal_(0.0, std, generator=generator)
    if unused := set(stds) - used:
        raise ValueError(f"init patterns {sorted(unused)} match no parameter of {type(model).__name__}")
