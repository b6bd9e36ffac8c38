"""Causal masks: what they let through, and which of them stay in memory."""

import pytest
import torch

from pitfalls.models import masks
from pitfalls.models.masks import causal_mask

CPU = torch.device("cpu")


@pytest.mark.parametrize("n_all", [5, 2000])
def test_new_positions_see_all_before_them_and_themselves(n_all):
    """A small mask, which is kept, and a large one."""
    n_new = min(n_all - 2, 600)
    seen = causal_mask(n_new, n_all, torch.float32, CPU)[0, 0] == 0
    position = torch.arange(n_all)
    assert torch.equal(seen, position <= position[-n_new:, None])


def test_only_small_masks_are_kept():
    """Guards against gigabytes of masks: each length of a long graph has its own, and none was ever let go."""
    side = int(masks.KEPT**0.5)
    small, large = [(size, size, torch.float32, CPU) for size in (side, side + 1)]
    assert causal_mask(*small) is causal_mask(*small)
    assert causal_mask(*large) is not causal_mask(*large)
    kept = causal_mask(*small)
    masks.forget_masks()
    assert causal_mask(*small) is not kept
