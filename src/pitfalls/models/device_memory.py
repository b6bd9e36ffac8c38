"""How much memory a device has, so that a model that does not fit is refused before memory is asked for."""

import os

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from transformers import AutoModelForCausalLM, PreTrainedConfig

from pitfalls.schemas import ConfigError, GPT2ModelConfig, ModelConfig, RecurrentModelConfig
from pitfalls.seeding import forked_rng

BYTES_PER_WEIGHT = 16
"""Bytes that training needs for a weight: the weight, its gradient and the two moments of AdamW in fp32."""


def memory_bytes(device: torch.device) -> float:
    """Return the memory of a device in bytes: that of the GPU, or that of the machine. Of other devices it is infinite."""
    if device.type == "cuda" and torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "cpu":
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return float("inf")


def check_fits(config: ModelConfig, n_embeddings: int, device: torch.device) -> None:
    """Refuse a model from scratch that cannot be trained on this machine, before memory is asked for.

    Other architectures of transformers are checked by `check_described_fits`.

    Raises:
        ConfigError: training needs more memory than there is.
    """
    if isinstance(config, GPT2ModelConfig):
        per_layer = (4 + 2 * config.mlp_ratio) * config.width**2
    elif isinstance(config, RecurrentModelConfig):
        per_layer = 3 * config.expand * config.width * (config.width + config.state_size)
    else:
        return
    n_weights = config.n_layers * per_layer + n_embeddings * config.width
    check_memory(f"model.width={config.width}, model.n_layers={config.n_layers}", n_weights, device)


def check_memory(keys: str, n_weights: int, device: torch.device) -> None:
    """Refuse to train a number of weights that the device has no memory for.

    Args:
        keys: the keys that decide the size, with their values, for the message.
        n_weights: number of weights, or a lower bound.
        device: the device of the training.

    Raises:
        ConfigError: weights, gradients and the two moments of AdamW in fp32 need more memory than there is.
    """
    needed, there = BYTES_PER_WEIGHT * n_weights / 2**30, memory_bytes(device) / 2**30
    if needed > there:
        raise ConfigError(
            f"{keys}: training about {n_weights:,} weights needs {needed:,.0f} GiB, and this machine has {there:,.0f} GiB; "
            f"take a smaller model"
        )


def check_described_fits(keys: str, described: PreTrainedConfig, device: torch.device) -> None:
    """Refuse to train a model that transformers' config describes, as `check_memory` does. Errors of its class pass through."""
    check_memory(keys, count_weights(described, memory_bytes(device) / BYTES_PER_WEIGHT), device)


class _TooManyError(Exception):
    """More weights than the limit."""


def count_weights(described: PreTrainedConfig, limit: float) -> int:
    """Return the number of weights of a model that transformers' config describes, or a number above ``limit``.

    No memory is asked for. The parameters are counted while a model without weights is made, and the first one above the limit
    stops it. Some models register a weight twice. Errors of the model's class pass through.
    """
    n = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal n
        n += 0 if parameter is None else parameter.numel()
        if n > limit:
            raise _TooManyError

    hook = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"), forked_rng():
            AutoModelForCausalLM.from_config(described, trust_remote_code=False)
    except _TooManyError:
        pass
    finally:
        hook.remove()
    return n
