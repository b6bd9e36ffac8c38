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
    if (groups := query.shape[1] // key.shape[1]) > 1:  # grouped queries: a key serves several heads
        key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query * scaling, key.transpose(-1, -2))
    if attention_mask is not None:
        scores = scores + attention_mask.to(scores.dtype)
    return torch.matmul(scores.softmax(-1).to(value.dtype), value).transpose(1, 2), None


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
