"""Additive attention masks: transformers adds them to the scores. An entry is 0 or a very negative number."""

from functools import lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def to_additive(may_attend: Bool[Tensor, "*b T S"], dtype: torch.dtype) -> Float[Tensor, "*b T S"]:
    """Return the additive mask of a boolean one, where True means "may attend"."""
    # the smallest bf16 is finite in fp32 as well, so a cast under autocast cannot turn it into -inf
    forbidden = max(torch.finfo(torch.bfloat16).min, torch.finfo(dtype).min)
    return torch.zeros(may_attend.shape, dtype=dtype, device=may_attend.device).masked_fill_(~may_attend, forbidden)


KEPT = 1 << 20
"""Largest number of entries of a mask that is kept for the next step. 64 such masks in fp32 take 256 MB."""


def causal_mask(n_new: int, n_all: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "1 1 T S"]:
    """Return the causal mask for the last T = n_new of S = n_all positions. Small masks are kept and returned again."""
    return (_kept if n_new * n_all <= KEPT else _made)(n_new, n_all, dtype, device)


def forget_masks() -> None:
    """Delete the kept masks. This is needed after torch's `FakeTensorMode`, whose masks hold no numbers."""
    _kept.cache_clear()


def _made(n_new: int, n_all: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    may_attend = torch.ones(n_new, n_all, dtype=torch.bool, device=device).tril_(n_all - n_new)
    return to_additive(may_attend, dtype)[None, None]


_kept = lru_cache(maxsize=64)(_made)
