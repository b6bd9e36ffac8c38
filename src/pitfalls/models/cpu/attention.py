"""A CPU attention for short sequences, registered with transformers as ``attn_implementation="matmul"``.

At the lengths of this task (tens of tokens) two batched matrix products and a softmax beat torch's fused CPU kernel,
whose backward dominates a training step (``scripts/benchmark.py`` measures it; docs/lab_notes/2026-11.md has the ratio). For a single
query, and beyond `LONG` tokens, that kernel is faster, and its memory grows with the length and not with its square: there it is
used.
The slow reference is transformers' own eager attention; a test holds the two together, values and gradients.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask, sdpa_mask

from pitfalls.models.masks import causal_mask

NAME = "matmul"
LONG = 512


def matmul_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: object,
) -> tuple[Tensor, None]:
    """Softmax attention: query [B,H,T,C], key and value [B,H/g,S,C], additive mask [B|1,1,T,S] -> [B,T,H,C], None.

    Without a mask, several queries of a causal module see no later key, as in transformers' sdpa; T is S then.

    Raises:
        NotImplementedError: dropout on the attention weights was asked for.
    """
    if dropout:
        raise NotImplementedError(f"{NAME} attention has no dropout, got {dropout}; use attn_implementation='eager'")
    n_new = query.shape[2]
    causal = attention_mask is None and n_new > 1 and getattr(module, "is_causal", False)
    if n_new == 1 or n_new > LONG:
        key, value = (_for_every_head(x, query.shape[1]) for x in (key, value))
        mask = None if attention_mask is None else attention_mask.to(query.dtype)
        return F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal, scale=scaling).transpose(1, 2), None
    if causal:
        attention_mask = causal_mask(n_new, n_new, query.dtype, query.device)
    return attend(attention_weights(query, key, attention_mask, scaling), value), None


def attention_weights(query: Tensor, key: Tensor, attention_mask: Tensor | None, scaling: float | None) -> Tensor:
    """Where each head looks: query [B,H,T,C], key [B,H/g,S,C], additive mask [B|1,1,T,S] -> [B,H,T,S]."""
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query * scaling, _for_every_head(key, query.shape[1]).transpose(-1, -2))
    if attention_mask is not None:
        scores = scores + attention_mask.to(scores.dtype)
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))  # torch's in bf16 takes four times as long


def attend(weights: Tensor, value: Tensor) -> Tensor:
    """What it finds there: weights [B,H,T,S], value [B,H/g,S,C] -> [B,T,H,C]."""
    return torch.matmul(weights.to(value.dtype), _for_every_head(value, weights.shape[1])).transpose(1, 2)


def _for_every_head(x: Tensor, n_heads: int) -> Tensor:
    """Grouped queries: a key serves several heads."""
    groups = n_heads // x.shape[1]
    return x.repeat_interleave(groups, 1) if groups > 1 else x


def for_device(device: torch.device) -> str:
    """The attention implementation that is fastest at this task's lengths."""
    return register() if device.type == "cpu" else "sdpa"


def register() -> str:
    """Make the attention known to transformers, with the mask builder that it needs, and return its name.

    A custom attention without an entry of its own in the mask interface gets no mask at all.
    """
    AttentionInterface.register(NAME, matmul_attention)
    AttentionMaskInterface.register(NAME, mask_unless_causal)
    return NAME


def mask_unless_causal(**kwargs: Any) -> Tensor | None:
    """The additive mask that transformers builds where it is given none; None where attention is causal and sdpa needs none."""
    return None if sdpa_mask(**kwargs) is None else eager_mask(**kwargs)


def needs_no_mask(implementation: str, n_new: int) -> bool:
    """Whether so many tokens are attended to faster if causal attention of a whole sequence is asked for by no mask at all."""
    return implementation == "sdpa" or (implementation == NAME and n_new > LONG)
