"""The fast CPU attention against transformers' own, in values and gradients."""

import pytest
import torch
from torch.testing import assert_close

from pitfalls.language.induction_heads import observed_attention
from pitfalls.models.cpu import attention
from pitfalls.models.hf_internals import attention_for, attention_name
from pitfalls.models.trunk import Trunk
from pitfalls.seeding import generator


def masks(n: int) -> dict[str, torch.Tensor | None]:
    scattered = torch.rand(3, n, n, generator=generator(3, "probe")) < 0.5
    return {"causal": None, "full": torch.ones(1, n, n, dtype=torch.bool), "scattered": scattered | torch.eye(n).bool()}


@pytest.mark.parametrize("long", [attention.LONG, 4])
@pytest.mark.parametrize("reference", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", ["causal", "full", "scattered"])
def test_values_and_gradients_equal_the_reference(
    trunk: Trunk, kind: str, reference: str, long: int, monkeypatch: pytest.MonkeyPatch
):
    """Guards against a wrong scale, a mask that is dropped, or heads in another order. In fp64, so only mistakes differ."""
    monkeypatch.setattr(attention, "LONG", long)
    trunk.double()
    tokens = torch.randint(0, 10, (3, 12), generator=generator(0, "probe"))
    weight = torch.randn(3, 12, trunk.width, generator=generator(1, "probe"), dtype=torch.float64)

    def run(name: str) -> tuple[torch.Tensor, list[torch.Tensor]]:
        trunk.lm.set_attn_implementation(name)
        assert attention_name(trunk.lm) == name
        trunk.zero_grad()
        normed = trunk(tokens, mask=masks(12)[kind]).normed
        (normed * weight).sum().backward()
        return normed.detach(), [p.grad.clone() for p in trunk.parameters() if p.grad is not None]

    (ours, our_grads), (theirs, their_grads) = run(attention.NAME), run(reference)
    assert_close(ours, theirs, atol=1e-10, rtol=1e-10)
    assert len(our_grads) == len(their_grads) > 20
    for a, b in zip(our_grads, their_grads, strict=True):
        assert_close(a, b, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("long", [attention.LONG, 4])
def test_the_scale_that_is_given_is_used(long: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(attention, "LONG", long)
    query, key, value = (torch.randn(2, 2, 5, 4, generator=generator(i, "probe")) for i in range(3))
    for scaling in (None, 0.1):
        ours, weights = attention.matmul_attention(torch.nn.Module(), query, key, value, None, scaling=scaling)
        theirs = torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=scaling)
        assert_close(ours, theirs.transpose(1, 2))
        assert weights is None


def heads() -> list[torch.Tensor]:
    return [torch.randn(2, 2, 5, 4, generator=generator(i, "probe")) for i in range(3)]


@pytest.mark.parametrize(
    "asked",
    [{"softcap": 2.0}, {"s_aux": torch.zeros(2)}, {"position_bias": torch.zeros(1)}, {"dropout": 0.1}, {"new_in_6": True}],
)
@pytest.mark.parametrize("function", [attention.matmul_attention, observed_attention])
def test_what_is_not_understood_is_refused(function, asked: dict[str, object]):
    """Guards against a cap of the scores, or sinks, that are swallowed: the answers differ, and nothing says so."""
    arguments = {"scaling": None, "softcap": None, "use_cache": True, "output_attentions": False} | asked
    with pytest.raises(NotImplementedError, match=f"has no {next(iter(asked))}"):
        function(torch.nn.Module(), *heads(), None, **arguments)


@pytest.mark.parametrize("function", [attention.matmul_attention, observed_attention])
def test_a_window_that_hides_nothing_is_accepted(function):
    whole, _ = function(torch.nn.Module(), *heads(), None)
    assert torch.equal(function(torch.nn.Module(), *heads(), None, sliding_window=5)[0], whole)
    with pytest.raises(NotImplementedError, match="no sliding_window=4 for 5 tokens"):
        function(torch.nn.Module(), *heads(), None, sliding_window=4)


def test_is_causal_of_the_call_wins(trunk: Trunk):
    module = torch.nn.Module()
    module.is_causal = True
    causal, _ = attention.matmul_attention(module, *heads(), None)
    assert torch.equal(attention.matmul_attention(module, *heads(), None, is_causal=True)[0], causal)
    assert not torch.equal(attention.matmul_attention(module, *heads(), None, is_causal=False)[0], causal)


@pytest.mark.parametrize("masked", [True, False])
def test_a_single_query_sees_what_the_last_of_many_sees(masked: bool, monkeypatch: pytest.MonkeyPatch):
    """Guards against a wrong mask, or wrong grouped heads, in torch's fused kernel, which a single query uses for speed."""
    query = torch.randn(2, 4, 5, 8, generator=generator(0, "probe"))
    key, value = (torch.randn(2, 2, 5, 8, generator=generator(i, "probe")) for i in (1, 2))
    mask = torch.zeros(1, 1, 5, 5).masked_fill(torch.eye(5).bool().flip(0), -1e9) if masked else None
    whole, _ = attention.matmul_attention(torch.nn.Module(), query, key, value, mask)
    monkeypatch.delattr(attention, "attention_weights")
    alone, _ = attention.matmul_attention(torch.nn.Module(), query[:, :, -1:], key, value, mask[:, :, -1:] if masked else None)
    assert_close(alone, whole[:, -1:])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_weights_are_at_least_fp32(dtype: torch.dtype):
    """Guards against a softmax in bf16: torch's is slow, and rows of rounded weights do not sum to one."""
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
    """Guards against a trunk that silently uses a slower attention."""
    assert attention_name(trunk.lm) == attention.NAME == attention_for(torch.device("cpu"))


@pytest.mark.parametrize("masked", [True, False])
def test_a_long_sequence_leaves_no_square_behind(masked: bool, monkeypatch: pytest.MonkeyPatch):
    """Guards against memory that grows with the square of the length: no tensor for the backward has T x T numbers per head."""
    query, key, value = (torch.randn(1, 2, 64, 4, generator=generator(i, "probe")).requires_grad_() for i in range(3))
    mask = torch.zeros(1, 1, 64, 64) if masked else None
    for long, square in ((attention.LONG, True), (32, False)):
        kept: list[int] = []
        monkeypatch.setattr(attention, "LONG", long)
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):  # noqa: B023
            attention.matmul_attention(torch.nn.Module(), query, key, value, mask)
        assert (max(kept) >= 2 * 64 * 64) is square


@pytest.mark.parametrize("long", [attention.LONG, 4])
def test_without_a_mask_a_causal_module_sees_nothing_later(trunk: Trunk, long: int, monkeypatch: pytest.MonkeyPatch):
    """Guards against a model called by transformers itself. Our trunk would bring a mask for short sequences."""
    monkeypatch.setattr(attention, "LONG", long)
    tokens, other = (torch.randint(0, 10, (3, 12), generator=generator(0, "probe")) for _ in range(2))
    other[:, 8] = (other[:, 8] + 1) % 10
    states, changed = (trunk.lm.base_model(input_ids=x).last_hidden_state for x in (tokens, other))
    assert_close(states[:, :8], changed[:, :8])
    assert (states[:, 8] != changed[:, 8]).any()
    trunk.lm.set_attn_implementation("eager")
    assert_close(states, trunk.lm.base_model(input_ids=tokens).last_hidden_state, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("first", [0, 9])
def test_a_long_sequence_goes_without_a_mask(trunk: Trunk, first: int, monkeypatch: pytest.MonkeyPatch):
    """Guards against a kernel that reads a T x T mask where causal order is enough. The states are those of short attention."""
    tokens = torch.randint(0, 10, (3, 12), generator=generator(0, "probe"))
    expected = trunk(tokens, first=first).normed
    monkeypatch.setattr(attention, "LONG", 4)
    given, kernel = [], torch.nn.functional.scaled_dot_product_attention

    def watched(query, key, value, attn_mask=None, is_causal=False, **kwargs):
        given.append((attn_mask is None, is_causal))
        return kernel(query, key, value, attn_mask, is_causal=is_causal, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    assert_close(trunk(tokens, first=first).normed, expected, atol=1e-5, rtol=1e-5)
    assert given == [(True, True)] * (trunk.n_layers - (first > 0)), "three positions of the last block are no long sequence"
