"""The only code that uses parts of transformers outside its public interface.

No other file imports from a submodule of transformers or reads a private attribute of its classes. `cpu/last_mamba_block.py`
reads the layers of the blocks that this file gives it.

All tests passed with transformers 5.15.0 and 5.23.0 (`TESTED_VERSIONS`). pyproject.toml admits every version from the first of
them to below 6, and the constraints files pin the second. A version in between or a newer one is expected to work, but nobody
ran it. If it renames a part, the import of this module or the first forward pass fails with that name. After an upgrade run
tests/models/test_hf_internals.py: it reports each missing name and the file to mend. Then change `TESTED_VERSIONS`.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    Cache,
    DynamicLayer,
    GPT2LMHeadModel,
    Mamba2ForCausalLM,
    MambaForCausalLM,
    PreTrainedModel,
    logging,
)
from transformers.masking_utils import eager_mask, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention, GPT2Block, eager_attention_forward
from transformers.models.mamba import modeling_mamba
from transformers.models.mamba2 import modeling_mamba2

from pitfalls.models.cpu import attention as matmul
from pitfalls.models.cpu.causal_conv import causal_conv1d
from pitfalls.models.cpu.chunk_scan import chunk_scan
from pitfalls.models.cpu.last_mamba_block import mamba2_from, mamba_from
from pitfalls.models.cpu.selective_scan import selective_scan
from pitfalls.models.masks import causal_mask
from pitfalls.schemas import ConfigError

TESTED_VERSIONS = ("5.15.0", "5.23.0")
"""The oldest and the newest version of transformers with which all tests of tests/models/ passed."""


# ------------------------------------------------------------------ parts of a model

FINAL_NORMS = ("ln_f", "norm", "norm_f", "final_layer_norm", "final_layernorm", "final_norm", "embedding_norm", "ln_out")
"""Names of the norm before the unembedding in transformers' base models."""

QUERY_PROJECTIONS = ("q_proj", "c_attn", "qkv_proj", "query_key_value", "Wqkv")
"""Names of the layer that projects queries in transformers' attention modules."""

RESIDUAL_OUTPUTS = (
    *("o_proj", "out_proj", "dense", "wo"),
    *("down_proj", "c_proj", "dense_4h_to_h", "output_linear", "fc2", "fc_out", "w2"),
)
"""Names of the layers whose output is added to the residual stream, of attention and of the MLP, or such weights of experts."""

CAUSAL_LM_TYPES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
"""transformers' names of the architectures that have a causal language model."""


def residual_outputs(lm: PreTrainedModel) -> list[list[nn.Parameter]]:
    """Return for each block the weights of the layers whose output is added to the residual stream, if their names are known."""
    ends = tuple(f".{name}{end}" for name in RESIDUAL_OUTPUTS for end in ("", ".weight"))
    return [[p for name, p in block.named_parameters() if f".{name}".endswith(ends)] for block in blocks(lm)]


def is_stateful(lm: PreTrainedModel | type[PreTrainedModel]) -> bool:
    """Return whether the model is recurrent: it carries a state of fixed size from token to token."""
    return bool(getattr(lm, "_is_stateful", False))


def final_norm(lm: PreTrainedModel) -> nn.Module:
    """Return the norm between the last block and the unembedding.

    Raises:
        ConfigError: the model keeps it under a name that is not in `FINAL_NORMS`.
    """
    for name in FINAL_NORMS:
        if hasattr(lm.base_model, name):
            return getattr(lm.base_model, name)
    raise ConfigError(
        f"a {type(lm).__name__} has no final norm under a known name ({', '.join(FINAL_NORMS)}); take another model, or add the "
        f"name to FINAL_NORMS in {__name__}"
    )


def after_unembedding(lm: PreTrainedModel) -> tuple[float, float | None]:
    """Return what the model does with its logits: a factor, and a cap c of c * tanh(logits / c), or None.

    Granite divides its logits, Cohere and Falcon-H1 multiply them, and Gemma 2 caps them. `load_check` finds other ways.
    """
    text = lm.config.get_text_config()
    factor = getattr(text, "logit_scale", None) or getattr(text, "lm_head_multiplier", None) or 1.0
    return factor / (getattr(text, "logits_scaling", None) or 1.0), getattr(text, "final_logit_softcapping", None)


def recurrent_cache_name(lm: PreTrainedModel) -> str:
    """Return the name of the argument that takes the states of a recurrent model."""
    names = inspect.signature(lm.base_model.forward).parameters
    return "cache_params" if "cache_params" in names else "past_key_values"


def blocks(lm: PreTrainedModel) -> nn.ModuleList:
    """Return the blocks of the model, from the first to the last."""
    return next(module for module in lm.base_model.children() if isinstance(module, nn.ModuleList))


def attention_modules(lm: PreTrainedModel) -> list[nn.Module]:
    """Return the attention modules in order: those with a layer number and a projection of queries."""
    return [m for m in lm.modules() if hasattr(m, "layer_idx") and any(hasattr(m, name) for name in QUERY_PROJECTIONS)]


def fused_outputs(parent: nn.Module, name: str, n_outputs: int) -> tuple[int, ...]:
    """Return the numbers of outputs of the matrices that are fused into one. A matrix of an unknown kind counts as one.

    Args:
        parent: the module that has the layer of the matrix.
        name: the name of the matrix.
        n_outputs: the number of all its outputs.
    """
    layer = name.removesuffix(".weight").rpartition(".")[2]
    if layer in ("c_attn", "in_proj_weight"):  # queries, keys and values, of GPT-2 and of torch
        return (n_outputs // 3,) * 3
    if isinstance(parent, modeling_mamba.MambaMixer):
        rank, state = parent.time_step_rank, parent.ssm_state_size
        return {"in_proj": (n_outputs // 2,) * 2, "x_proj": (rank, state, state)}.get(layer, (n_outputs,))
    if isinstance(parent, modeling_mamba2.Mamba2Mixer) and layer == "in_proj":
        inner, state = parent.intermediate_size, parent.n_groups * parent.ssm_state_size
        return (inner, inner, state, state, parent.num_heads)
    return (n_outputs,)


def mlp_modules(lm: GPT2LMHeadModel) -> list[nn.Module]:
    """Return the MLP of each block of a GPT-2, in order."""
    return [block.get_submodule("mlp") for block in blocks(lm)]


def switch_off_dropout(lm: PreTrainedModel) -> None:
    """Set all dropout to 0, as in the paper's code. Some models have dropout layers, others a number in the attention module."""
    for module in lm.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within the context, transformers prints no warnings: of missing weights, which we refuse, or of kernels for GPUs."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


# ------------------------------------------------------------------ attention


def attention_name(lm: PreTrainedModel) -> str:
    """Return the name of the attention implementation that the model uses, such as "sdpa"."""
    return lm.config._attn_implementation


@contextlib.contextmanager
def attention_set_to(lm: PreTrainedModel, name: str) -> Iterator[None]:
    """Within the context, the model uses the attention implementation ``name``."""
    before = attention_name(lm)
    lm.set_attn_implementation(name)
    try:
        yield
    finally:
        lm.set_attn_implementation(before)


def register_attention(name: str, function: Callable[..., Any], mask: Callable[..., Tensor | None] = eager_mask) -> None:
    """Make an attention function known to transformers under ``name``, with the function that builds its mask.

    The mask is additive by default. transformers gives an attention function without a registered mask no mask at all.
    """
    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, mask)


def attention_for(device: torch.device) -> str:
    """Return the name of the attention implementation that is fastest on ``device`` at the lengths of the path-star task."""
    if device.type != "cpu":
        return "sdpa"
    register_attention(matmul.NAME, matmul.matmul_attention, mask_unless_causal)
    return matmul.NAME


def choose_attention(lm: PreTrainedModel, device: torch.device) -> None:
    """Let a model use the fastest attention on ``device`` that computes what the model asks for.

    A model that caps its attention scores (Gemma 2) or has sinks computes them in transformers' eager attention only. A model
    whose attention cannot be chosen keeps its own.
    """
    if not can_choose_attention(lm):
        return
    caps = getattr(lm.config.get_text_config(), "attn_logit_softcapping", None) is not None
    lm.set_attn_implementation("eager" if caps or not lm._supports_sdpa else attention_for(device))


def can_choose_attention(lm: PreTrainedModel) -> bool:
    """Return whether the model's attention goes through transformers' table of attention functions."""
    return bool(getattr(lm, "_supports_attention_backend", False))


def mask_unless_causal(**kwargs: Any) -> Tensor | None:
    """Return an additive mask, or None if the attention is causal and sdpa would need no mask."""
    return None if sdpa_mask(**kwargs) is None else eager_mask(**kwargs)


# ------------------------------------------------------------------ the last block at some positions only


@contextlib.contextmanager
def last_block_from(
    lm: PreTrainedModel, first: int, mask: Float[Tensor, "b 1 T S"] | None
) -> Iterator[list[Float[Tensor, "B K D"]]]:
    """Within the context, the last block computes its output only at the K = T - first positions from ``first`` on.

    A loss on the answer needs no state of the prompt after the last block. With a prompt of 27 tokens, an answer of 5 and
    4 blocks this saves a sixth of the training step. A GPT-2 still computes the keys and values of all positions.
    Only a GPT-2 and a Mamba on a CPU are changed. For other models, and with ``first`` = 0, the list stays empty.
    The slow reference is transformers' own block. The test tests/models/test_last_block.py compares states and gradients.

    Args:
        lm: the model. Do not use its outputs within the context, because its final norm is skipped.
        first: the first of the requested positions.
        mask: the additive mask of all blocks of a GPT-2. None means causal, with an empty cache.

    Yields:
        A list, to which each call of the model appends the output of the last block.
    """
    outputs: list[Tensor] = []
    parts = _last_block(lm) if first else None
    if parts is None:
        yield outputs
        return
    block, norm, run = parts
    block.forward = partial(_append_last, outputs, lambda states, cache, kwargs: run(block, states, first, cache, mask, **kwargs))
    norm.forward = lambda states: states
    try:
        yield outputs
    finally:
        del block.forward, norm.forward


def _append_last(
    outputs: list[Tensor],
    run: Callable[[Tensor, Cache | None, dict[str, Any]], Tensor],
    states: Tensor,
    cache: Cache | None = None,
    *_: object,
    **kwargs: Any,
) -> Tensor:
    """The forward of a last block. It is no closure, because tests would then decorate it again in every pass, for 0.6 ms."""
    outputs.append(run(states, cache, kwargs))
    return states.detach()  # transformers expects a state for every position


def _last_block(lm: PreTrainedModel) -> tuple[Any, Any, Callable[..., Tensor]] | None:
    """Return the last block, the norm after it and the function that runs the block. It is None for other models."""
    if isinstance(lm, GPT2LMHeadModel):
        return blocks(lm)[-1], final_norm(lm), _gpt2_from
    if isinstance(lm, (MambaForCausalLM, Mamba2ForCausalLM)) and lm.device.type == "cpu":
        run = mamba_from if isinstance(lm, MambaForCausalLM) else mamba2_from
        return blocks(lm)[-1], final_norm(lm), lambda block, states, first, *_, **__: run(block, states, first)
    return None


def _gpt2_from(block: Any, states: Tensor, first: int, cache: Cache | None, mask: Tensor | None, **others: object) -> Tensor:
    length = states.shape[1]
    # no mask means a causal one over the whole sequence. For the last positions only, it has to be explicit
    rows = causal_mask(length - first, length, states.dtype, states.device) if mask is None else mask[:, :, first:]
    return gpt2_block_from(block, states, cache, rows, first, **others)


def gpt2_block_from(
    block: GPT2Block,
    states: Float[Tensor, "B T D"],
    cache: Cache | None,
    mask: Float[Tensor, "b 1 K S"],
    first: int,
    **kwargs: object,
) -> Float[Tensor, "B K D"]:
    """Return the output of a GPT-2 block at the K = T - first positions from ``first`` on. ``mask`` has one row for each.

    A block of another class, such as that of `pitfalls.models.gpt_conv`, has a method ``forward_from`` that does it.
    """
    if forward_from := getattr(block, "forward_from", None):
        return forward_from(states, cache, mask, first, **kwargs)
    attention = block.attn
    # split before anything is computed: the gradient of a slice is a tensor of zeros as large as the whole
    before, states = states.split([first, states.shape[1] - first], 1)
    width, weight, bias = attention.split_size, attention.c_attn.weight, attention.c_attn.bias
    query, *own = attention.c_attn(block.ln_1(states)).split(width, 2)
    others = F.linear(block.ln_1(before), weight[:, width:].T, bias[width:]).split(width, 2)
    key, value = (by_heads(attention, torch.cat(parts, 1)) for parts in zip(others, own, strict=True))
    if cache is not None:
        key, value = cache.update(key, value, attention.layer_idx)
    if not states.shape[1]:  # only the cache is needed
        return states
    attend = attention_function(attention)
    dropout = attention.attn_dropout.p if attention.training else 0.0
    mixed, _ = attend(attention, by_heads(attention, query), key, value, mask, dropout=dropout, scaling=attention.scaling)
    states = attention.resid_dropout(attention.c_proj(mixed.flatten(2))) + states
    return block.mlp(block.ln_2(states)) + states


def attention_function(attention: GPT2Attention) -> Callable[..., Any]:
    """Return the function that computes the attention, as the model's config names it."""
    return ALL_ATTENTION_FUNCTIONS.get_interface(attention.config._attn_implementation, eager_attention_forward)


def by_heads(attention: GPT2Attention, x: Float[Tensor, "B n D"]) -> Float[Tensor, "B H n C"]:
    """Return states with the heads of an attention as a dimension of their own."""
    return x.view(x.shape[0], x.shape[1], attention.num_heads, attention.head_dim).transpose(1, 2)


# ------------------------------------------------------------------ a cache with preallocated space


class PreallocatedLayer(DynamicLayer):
    """The keys and values of one block for at most ``n_tokens`` tokens. No gradient passes through it.

    A new token is written into its place, and nothing is copied. transformers' `DynamicLayer` copies everything at each token.
    Its `StaticLayer` copies nothing, but there the attention also reads the empty places, under a mask.
    The slow reference is `DynamicLayer`. The tests of caches in tests/models/test_trunk.py compare the two.
    """

    def __init__(self, n_tokens: int) -> None:
        super().__init__()
        self.n_tokens = n_tokens
        self._space: list[Tensor] = []

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Write the keys and values [B,H,T,C] of T more tokens, and return those of all tokens so far.

        Raises:
            ValueError: there is no space for T more tokens.
        """
        n_new, n_before = key_states.shape[2], self.get_seq_length()
        n_all = n_before + n_new
        if n_all > self.n_tokens:
            raise ValueError(f"the cache has space for {self.n_tokens} tokens, got {n_all}; make it with new_cache({n_all})")
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._space = [x.new_empty(*x.shape[:2], self.n_tokens, x.shape[3]) for x in (key_states, value_states)]
        for space, new in zip(self._space, (key_states, value_states), strict=True):
            space[:, :, n_before:n_all] = new
        self.keys, self.values = (space[:, :, :n_all] for space in self._space)
        return self.keys, self.values


def preallocate(cache: Cache, n_tokens: int) -> None:
    """Preallocate space for ``n_tokens`` tokens in an empty cache. Recurrent states and sliding windows are not changed."""
    cache.layers = [PreallocatedLayer(n_tokens) if type(layer) is DynamicLayer else layer for layer in cache.layers]


# ------------------------------------------------------------------ kernels of the Mambas

DISPATCHED: dict[ModuleType, tuple[str, ...]] = {
    modeling_mamba: (
        "causal_conv1d_fn",
        "causal_conv1d_update",
        "mamba_inner_fn",
        "mamba_selective_scan",
        "mamba_selective_state_update",
    ),
    modeling_mamba2: (
        "causal_conv1d_fn",
        "causal_conv1d_update",
        "mamba2_split_conv1d_scan_combined",
        "mamba2_chunk_scan",
        "mamba2_selective_state_update",
    ),
}
"""The functions that transformers' mixers call, by module."""

CPU_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "causal_conv1d_fn": causal_conv1d,
    "mamba_selective_scan": selective_scan,
    "mamba2_chunk_scan": chunk_scan,
}
"""Our functions for tensors that are not on a GPU, by name. For other names transformers' own functions are used."""


class ByDevice:
    """A function that calls ``on_gpu`` if its first argument is on a GPU, or else ``elsewhere``."""

    def __init__(self, on_gpu: Callable[..., Any], elsewhere: Callable[..., Any]) -> None:
        self.on_gpu, self.elsewhere = on_gpu, elsewhere

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the function for the device of ``x``."""
        return (self.on_gpu if x.is_cuda else self.elsewhere)(x, *args, **kwargs)


def dispatch_mamba_kernels() -> None:
    """Make each kernel function of transformers' Mambas depend on the device of its tensors. A second call changes nothing.

    transformers chooses once, at import: mamba_ssm's kernels if that package can be imported. If it is installed, no Mamba
    would run on a CPU.
    """
    for module, names in DISPATCHED.items():
        for name in names:
            bound = getattr(module, name)
            if not isinstance(bound, ByDevice):
                setattr(module, name, ByDevice(bound, CPU_FUNCTIONS.get(name, inspect.unwrap(bound))))
