"""How much memory a device has, so that a model that does not fit is refused before memory is asked for."""

import os

import torch

from pitfalls.schemas import ConfigError, GPT2ModelConfig, ModelConfig, RecurrentModelConfig


def memory_bytes(device: torch.device) -> float:
    """Return the memory of a device in bytes: that of the GPU, or that of the machine. Of other devices it is infinite."""
    if device.type == "cuda" and torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "cpu":
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return float("inf")


def check_fits(config: ModelConfig, n_embeddings: int, device: torch.device) -> None:
    """Refuse a model from scratch that cannot be trained on this machine, before memory is asked for.

    Raises:
        ConfigError: weights, gradients and the two moments of AdamW in fp32 need more memory than there is.
    """
    if isinstance(config, GPT2ModelConfig):
        per_layer = (4 + 2 * config.mlp_ratio) * config.width**2
    elif isinstance(config, RecurrentModelConfig):
        per_layer = 3 * config.expand * config.width * (config.width + config.state_size)
    else:
        return
    n_weights = config.n_layers * per_layer + n_embeddings * config.width
    needed, there = 16 * n_weights / 2**30, memory_bytes(device) / 2**30
    if needed > there:
        raise ConfigError(
            f"model.width={config.width}, model.n_layers={config.n_layers}: training about {n_weights:,} weights needs "
            f"{needed:,.0f} GiB, and this machine has {there:,.0f} GiB; take a smaller model"
        )
