"""The last block for some positions only: in a GPT-2 keys and values of all, everything else for those that are read.

A loss on the answer, and a decoder that has read its prompt, need no state of the prompt's positions after the last block,
and nothing reads one. With a prompt of 27 tokens, an answer of 5 and 4 blocks, a sixth of the whole step is saved. Mambas on a
CPU do likewise (`last_mamba_block`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from transformers import Cache, Mamba2ForCausalLM, MambaForCausalLM, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention, GPT2Block, GPT2LMHeadModel, eager_attention_forward

from pitfalls.models.cpu.last_mamba_block import mamba2_from, mamba_from
from pitfalls.models.masks import causal_mask


@contextmanager
def read_from(lm: PreTrainedModel, first: int, mask: Float[Tensor, "b 1 T S"] | None) -> Iterator[list[Float[Tensor, "B K D"]]]:
    """While it lasts, a model runs its last block from position ``first`` on and leaves the states there in the list.

    What the model itself returns is of no use then: its final norm is passed by. Other architectures than GPT-2, and than a
    Mamba on a CPU that caches nothing, are left as they are. ``mask`` is what all blocks of a GPT-2 obey; None is causal, and
    then nothing is cached before these states.
    """
    kept: list[Tensor] = []
    parts = _parts(lm) if first else None
    if parts is None:
        yield kept
        return
    block, norm, run = parts

    def forward(states: Tensor, cache: Cache | None = None, *_: object, **__: object) -> Tensor:
        kept.append(run(block, states, first, cache, mask))
        return states.detach()  # transformers asks for all positions

    block.forward, norm.forward = forward, lambda states: states
    try:
        yield kept
    finally:
        del block.forward, norm.forward


def _parts(lm: PreTrainedModel) -> tuple[Any, Any, Callable[..., Tensor]] | None:
    """The last block, the norm after it and what runs the block; None for architectures that are left as they are."""
    if isinstance(lm, GPT2LMHeadModel):
        return lm.transformer.h[-1], lm.transformer.ln_f, _gpt2_from
    if isinstance(lm, (MambaForCausalLM, Mamba2ForCausalLM)) and lm.device.type == "cpu":
        run = mamba_from if isinstance(lm, MambaForCausalLM) else mamba2_from
        return lm.backbone.layers[-1], lm.backbone.norm_f, lambda block, states, first, *_: run(block, states, first)
    return None


def _gpt2_from(block: GPT2Block, states: Tensor, first: int, cache: Cache | None, mask: Tensor | None) -> Tensor:
    length = states.shape[1]
    # without a mask the whole sequence is causal; the positions from the first on alone are not
    own = causal_mask(length - first, length, states.dtype, states.device) if mask is None else mask[:, :, first:]
    return run_from(block, states, cache, own, first)


def run_from(
    block: GPT2Block, states: Float[Tensor, "B T D"], cache: Cache | None, mask: Float[Tensor, "b 1 K S"], first: int
) -> Float[Tensor, "B K D"]:
    """The block's output at the K = T - first positions from ``first`` on, of T new ones; the mask is that of the K."""
    attention = block.attn
    # parted before anything is computed: the gradient of a slice is a tensor of zeros as large as the whole
    before, states = states.split([first, states.shape[1] - first], 1)
    width, weight, bias = attention.split_size, attention.c_attn.weight, attention.c_attn.bias
    query, *own = attention.c_attn(block.ln_1(states)).split(width, 2)
    others = F.linear(block.ln_1(before), weight[:, width:].T, bias[width:]).split(width, 2)
    key, value = (_heads(attention, torch.cat(parts, 1)) for parts in zip(others, own, strict=True))
    if cache is not None:
        key, value = cache.update(key, value, attention.layer_idx)
    if not states.shape[1]:  # read for the cache alone
        return states
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(attention.config._attn_implementation, eager_attention_forward)
    dropout = attention.attn_dropout.p if attention.training else 0.0
    mixed, _ = attend(attention, _heads(attention, query), key, value, mask, dropout=dropout, scaling=attention.scaling)
    states = attention.resid_dropout(attention.c_proj(mixed.flatten(2))) + states
    return block.mlp(block.ln_2(states)) + states


def _heads(attention: GPT2Attention, x: Float[Tensor, "B n D"]) -> Float[Tensor, "B H n C"]:
    return x.view(x.shape[0], x.shape[1], attention.num_heads, attention.head_dim).transpose(1, 2)
