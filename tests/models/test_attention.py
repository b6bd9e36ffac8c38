"""The fast CPU attention against transformers' own, in values and gradients."""

import pytest
import torch
from torch.testing import assert_close

from pitfalls.models import attention
from pitfalls.models.trunk import Trunk
from pitfalls.seeding import generator


def masks(n: int) -> dict[str, torch.Tensor | None]:
    scattered = torch.rand(3, n, n, generator=generator(3, "probe")) < 0.5
    return {"causal": None, "full": torch.ones(1, n, n, dtype=torch.bool), "scattered": scattered | torch.eye(n).bool()}


@pytest.mark.parametrize("reference", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", ["causal", "full", "scattered"])
def test_values_and_gradients_equal_the_reference(trunk: Trunk, kind: str, reference: str):
    """Guards a wrong scale, a mask that is dropped, or heads in another order; in fp64, so only mistakes differ."""
    trunk.double()
    tokens = torch.randint(0, 10, (3, 12), generator=generator(0, "probe"))
    weight = torch.randn(3, 12, trunk.width, generator=generator(1, "probe"), dtype=torch.float64)

    def run(name: str) -> tuple[torch.Tensor, list[torch.Tensor]]:
        trunk.lm.set_attn_implementation(name)
        assert trunk.lm.config._attn_implementation == name
        trunk.zero_grad()
        normed = trunk(tokens, mask=masks(12)[kind]).normed
        (normed * weight).sum().backward()
        return normed.detach(), [p.grad.clone() for p in trunk.parameters() if p.grad is not None]

    (ours, our_grads), (theirs, their_grads) = run(attention.NAME), run(reference)
    assert_close(ours, theirs, atol=1e-10, rtol=1e-10)
    assert len(our_grads) == len(their_grads) > 20
    for a, b in zip(our_grads, their_grads, strict=True):
        assert_close(a, b, atol=1e-9, rtol=1e-9)


def test_the_scale_that_is_given_is_used():
    query, key, value = (torch.randn(2, 2, 5, 4, generator=generator(i, "probe")) for i in range(3))
    for scaling in (None, 0.1):
        ours, weights = attention.matmul_attention(torch.nn.Module(), query, key, value, None, scaling=scaling)
        theirs = torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=scaling)
        assert_close(ours, theirs.transpose(1, 2))
        assert weights is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_weights_are_at_least_fp32(dtype: torch.dtype):
    """In bf16 torch's softmax is slow, and rows of rounded weights do not sum to one."""
    query, key = (torch.randn(2, 2, 31, 4, generator=generator(i, "probe")).to(dtype) for i in range(2))
    weights = attention.attention_weights(query, key, None, None)
    assert weights.dtype == torch.promote_types(dtype, torch.float32)
    assert_close(weights.sum(-1), torch.ones(2, 2, 31, dtype=weights.dtype), atol=1e-6, rtol=0)
    assert attention.attend(weights, key).dtype == dtype


def test_dropout_is_refused_and_not_ignored():
    x = torch.zeros(1, 1, 2, 4)
    with pytest.raises(NotImplementedError, match=r"0\.1.*eager"):
        attention.matmul_attention(torch.nn.Module(), x, x, x, None, dropout=0.1)


def test_the_cpu_trunk_uses_the_fast_attention(trunk: Trunk):
    """Guards a speed that is lost in silence."""
    assert trunk.lm.config._attn_implementation == attention.NAME == attention.register()
