"""Kernels refuse what they do not know."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pitfalls.models.cpu.causal_conv import causal_conv1d
from pitfalls.models.cpu.chunk_scan import chunk_scan
from pitfalls.models.cpu.selective_scan import selective_scan

B, D, L, N = 2, 4, 6, 3
KERNELS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "causal convolution": (causal_conv1d, (torch.ones(B, D, L), torch.ones(D, 3))),
    "chunked scan": (
        chunk_scan,
        (torch.ones(B, L, 2, 4), torch.ones(B, L, 2), -torch.ones(2), torch.ones(B, L, 1, N), torch.ones(B, L, 1, N), 4),
    ),
    "selective scan": (
        selective_scan,
        (torch.ones(B, D, L), torch.ones(B, D, L), -torch.ones(D, N), torch.ones(B, N, L), torch.ones(B, N, L)),
    ),
}


@pytest.mark.parametrize("name", KERNELS)
def test_a_packed_sequence_is_refused(name: str):
    """Guards against sequences in one row that see each other, because the kernel swallows the word that separates them."""
    kernel, arguments = KERNELS[name]
    kernel(*arguments, seq_idx=None)
    with pytest.raises(NotImplementedError, match=f"the {name} on a CPU has no seq_idx"):
        kernel(*arguments, seq_idx=torch.zeros(B, L, dtype=torch.int32))


def test_the_choice_of_a_method_means_nothing():
    kernel, arguments = KERNELS["selective scan"]
    assert torch.equal(kernel(*arguments, use_mambapy=True, use_associative_scan=False), kernel(*arguments))
