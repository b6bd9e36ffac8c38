"""The CPU scan of Mamba-2 against transformers' own function, in values, last state and every gradient."""

import inspect

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers.models.mamba2 import modeling_mamba2

from pitfalls.models import hf_internals
from pitfalls.models.cpu.chunk_scan import chunk_scan
from pitfalls.seeding import generator

B, L, H, P, N = 2, 11, 4, 3, 5


def reference(*args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
    """Return the result of transformers' own function, without our dispatch."""
    bound = modeling_mamba2.mamba2_chunk_scan
    bound = bound.on_gpu if isinstance(bound, hf_internals.ByDevice) else bound
    return inspect.unwrap(bound)(*args, **kwargs)


def inputs(groups: int) -> dict[str, Tensor]:
    """Return random values of all arguments of a scan."""
    draw = generator(0, "probe")
    tensors = {
        "x": torch.randn(B, L, H, P, generator=draw),
        "dt": torch.rand(B, L, H, generator=draw) * 2,
        "A": -torch.rand(H, generator=draw) * 4 - 0.1,
        "B": torch.randn(B, L, groups, N, generator=draw),
        "C": torch.randn(B, L, groups, N, generator=draw),
        "D": torch.randn(H, generator=draw),
        "dt_bias": torch.randn(H, generator=draw),
        "initial_states": torch.randn(B, H, P, N, generator=draw),
    }
    return tensors


def results(scan, tensors: dict[str, Tensor], left_out: frozenset[str], chunk_size: int, **options: object) -> dict[str, Tensor]:
    """Return the outputs, the last state, and the gradient by each input of a random weighted sum of both."""
    given = {name: x.clone().requires_grad_() for name, x in tensors.items() if name not in left_out}
    positional = [given[name] for name in ("x", "dt", "A", "B", "C")]
    named = {name: given[name] for name in ("D", "dt_bias", "initial_states") if name in given}
    y, state = scan(*positional, chunk_size, **named, return_final_states=True, **options)
    draw = generator(1, "probe")
    total = sum((out * torch.randn(out.shape, generator=draw)).sum() for out in (y, state))
    grads = torch.autograd.grad(total, list(given.values()))
    return {"y": y, "state": state, **{f"d_{name}": grad for name, grad in zip(given, grads, strict=True)}}


@pytest.mark.parametrize("left_out", [(), ("D",), ("dt_bias",), ("initial_states",), ("D", "dt_bias", "initial_states")])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("chunk_size", [4, 11, 16])
def test_equals_the_reference(left_out: tuple[str, ...], groups: int, chunk_size: int):
    """Guards against a wrong decay between chunks, heads with the wrong group's B and C, and a last chunk that is not full."""
    tensors, missing = inputs(groups), frozenset(left_out)
    ours, theirs = (results(scan, tensors, missing, chunk_size, dt_softplus=True) for scan in (chunk_scan, reference))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert_close(value, theirs[name], atol=2e-4, rtol=2e-4, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("chunk_size", [2, 8])
def test_gradients_by_finite_differences(chunk_size: int):
    """Compare with finite differences in fp64. The reference is not used."""
    draw = generator(0, "probe")
    shapes = {"x": (1, 5, 2, 2), "dt": (1, 5, 2), "A": (2,), "B": (1, 5, 1, 3), "C": (1, 5, 1, 3), "D": (2,), "dt_bias": (2,)}
    tensors = {name: torch.rand(shape, generator=draw, dtype=torch.float64) + 0.1 for name, shape in shapes.items()}
    tensors["A"] = -tensors["A"]

    def scan(*args: Tensor) -> tuple[Tensor, Tensor]:
        named = dict(zip(("D", "dt_bias"), args[5:], strict=True))
        return chunk_scan(*args[:5], chunk_size, **named, dt_softplus=True, return_final_states=True)

    assert torch.autograd.gradcheck(scan, tuple(x.requires_grad_() for x in tensors.values()))


def test_the_limit_of_the_step_size_is_kept():
    tensors, missing = inputs(1), frozenset({"initial_states"})
    options = {"dt_softplus": True, "dt_limit": (0.5, 1.0)}
    ours, theirs = (results(scan, tensors, missing, 16, **options) for scan in (chunk_scan, reference))
    assert_close(ours["y"], theirs["y"], atol=2e-4, rtol=2e-4)
    free = results(chunk_scan, tensors, missing, 16, dt_softplus=True)
    assert not torch.allclose(ours["y"], free["y"])


def test_the_chunk_size_changes_rounding_only():
    tensors = inputs(2)
    small, whole = (results(chunk_scan, tensors, frozenset(), size, dt_softplus=True) for size in (3, 64))
    for name, value in small.items():
        assert_close(value, whole[name], atol=2e-4, rtol=2e-4)


def test_a_decay_too_strong_for_the_exponential_stays_finite():
    """Guards against exp(-cumsum) forms, which overflow: steps of 5 with rate 16 over 11 positions decay by exp(-880)."""
    tensors = inputs(1)
    tensors["dt"] = torch.full_like(tensors["dt"], 5.0)
    tensors["A"] = torch.full_like(tensors["A"], -16.0)
    for name, value in results(chunk_scan, tensors, frozenset({"dt_bias"}), 16, dt_softplus=True).items():
        assert value.isfinite().all(), name
