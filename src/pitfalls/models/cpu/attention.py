"""Attention on CPUs for short sequences. `hf_internals.attention_for` registers it with transformers under `NAME`.

For tens of tokens, two batched matrix products and a softmax are faster than torch's fused CPU kernel, whose backward takes most
of a training step. ``scripts/benchmark.py`` measures it, and docs/lab_notes/2026-11.md has the ratio.
For a single query, and beyond `LONG` tokens, the fused kernel is faster and is used. Its memory grows linearly with the length.
The slow reference is transformers' eager attention. The test tests/models/cpu/test_attention.py compares values and gradients.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pitfalls.models.cpu.keywords import ATTENTION_INERT, refuse_keywords, refuse_short_window
from pitfalls.models.masks import causal_mask

NAME = "matmul"
"""The name of this attention in transformers."""

LONG = 512
"""Number of queries beyond which torch's fused kernel is used."""


def matmul_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **others: object,
) -> tuple[Tensor, None]:
    """Return the output [B,T,H,C] of softmax attention, and None in place of its weights.

    Args:
        module: the attention module. Its ``is_causal`` is read.
        query: [B,H,T,C].
        key: [B,H/g,S,C]. Groups of g heads share one key.
        value: [B,H/g,S,C].
        attention_mask: additive, [B|1,1,T,S]. Without one, a query of a causal module sees no later key, and T is S.
        scaling: the factor of the scores, by default 1/sqrt(C).
        dropout: must be 0.
        sliding_window: how many keys a query sees. It must be S or more.
        is_causal: overrides that of the module.
        others: keywords that it does not know. They must be None or inert (`pitfalls.models.cpu.keywords`).

    Raises:
        NotImplementedError: an argument asks for something else, such as dropout, a cap of the scores, or sinks.
    """
    refuse_keywords(f"{NAME} attention", others | {"dropout": dropout or None}, ATTENTION_INERT)
    refuse_short_window(f"{NAME} attention", sliding_window, key.shape[2])
    n_new = query.shape[2]
    causal = attention_mask is None and n_new > 1 and (getattr(module, "is_causal", False) if is_causal is None else is_causal)
    if n_new == 1 or n_new > LONG:
        key, value = (_for_every_head(x, query.shape[1]) for x in (key, value))
        mask = None if attention_mask is None else attention_mask.to(query.dtype)
        return F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal, scale=scaling).transpose(
            1, 2
        ).contiguous(), None
    if causal:
        attention_mask = causal_mask(n_new, n_new, query.dtype, query.device)
    return attend(attention_weights(query, key, attention_mask, scaling), value), None


def attention_weights(query: Tensor, key: Tensor, attention_mask: Tensor | None, scaling: float | None) -> Tensor:
    """Return the attention weights [B,H,T,S] of query [B,H,T,C] and key [B,H/g,S,C] under an additive mask [B|1,1,T,S]."""
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query * scaling, _for_every_head(key, query.shape[1]).transpose(-1, -2))
    if attention_mask is not None:
        scores = scores + attention_mask.to(scores.dtype)
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))  # torch's in bf16 takes four times as long


def attend(weights: Tensor, value: Tensor) -> Tensor:
    """Return the weighted sums [B,T,H,C] of value [B,H/g,S,C] under the weights [B,H,T,S]."""
    mixed = torch.matmul(weights.to(value.dtype), _for_every_head(value, weights.shape[1]))
    return mixed.transpose(1, 2).contiguous()  # some models view it, and those that reshape it would copy it anyway


def _for_every_head(x: Tensor, n_heads: int) -> Tensor:
    """Repeat the keys or values of grouped-query attention, so that each head has one."""
    groups = n_heads // x.shape[1]
    return x.repeat_interleave(groups, 1) if groups > 1 else x


def needs_no_mask(implementation: str, n_new: int) -> bool:
    """Return whether causal attention of a whole sequence of ``n_new`` tokens is faster when it is given no mask."""
    return implementation == "sdpa" or (implementation == NAME and n_new > LONG)
