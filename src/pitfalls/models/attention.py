"""A CPU attention for short sequences, registered with transformers as ``attn_implementation="matmul"``.

At the lengths of this task (tens of tokens) two batched matrix products and a softmax beat torch's fused CPU kernel,
whose backward dominates a training step (docs/lab_notes.md has the ratio; ``scripts/benchmark.py`` measures it).
The slow reference is transformers' own eager attention; a test holds the two together, values and gradients.
"""

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

NAME = "matmul"


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

    Raises:
        NotImplementedError: dropout on the attention weights was asked for.
    """
    if dropout:
        raise NotImplementedError(f"{NAME} attention has no dropout, got {dropout}; use attn_implementation='eager'")
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
    AttentionMaskInterface.register(NAME, eager_mask)
    return NAME
