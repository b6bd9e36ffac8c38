"""The CPU scan of Mamba-1 against transformers' own function, in values, last state and every gradient."""

import inspect

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers.models.mamba import modeling_mamba

from pitfalls.models import hf_internals
from pitfalls.models.cpu.selective_scan import selective_scan
from pitfalls.seeding import generator

B, D, L, N = 3, 6, 9, 4


def reference(*args: Tensor, **kwargs: object) -> tuple[Tensor, Tensor]:
    """Return the result of transformers' own function, without our dispatch."""
    bound = modeling_mamba.mamba_selective_scan
    bound = bound.on_gpu if isinstance(bound, hf_internals.ByDevice) else bound
    return inspect.unwrap(bound)(*args, **kwargs)


def inputs(dtype: torch.dtype = torch.float32, length: int = L) -> dict[str, Tensor]:
    """Return random values of all arguments of a scan. Steps go from 0.001 to 5, decay rates from 0.1 to 16."""
    draw = generator(0, "probe")
    tensors = {
        "u": torch.randn(B, D, length, generator=draw),
        "delta": torch.rand(B, D, length, generator=draw) * 5 + 1e-3,
        "A": -torch.rand(D, N, generator=draw) * 16 - 0.1,
        "B": torch.randn(B, N, length, generator=draw),
        "C": torch.randn(B, N, length, generator=draw),
        "D": torch.randn(D, generator=draw),
        "z": torch.randn(B, D, length, generator=draw),
        "delta_bias": torch.randn(D, generator=draw),
    }
    return {name: x.to(dtype).requires_grad_() for name, x in tensors.items()}


def results(scan, tensors: dict[str, Tensor], left_out: frozenset[str], softplus: bool) -> dict[str, Tensor]:
    """Return the outputs, the last state, and the gradient by each input of a random weighted sum of both."""
    given = {name: x.detach().clone().requires_grad_() for name, x in tensors.items() if name not in left_out}
    positional = [given[name] for name in ("u", "delta", "A", "B", "C")]
    named = {name: given[name] for name in ("D", "z", "delta_bias") if name in given}
    y, state = scan(*positional, **named, delta_softplus=softplus, return_last_state=True)
    draw = generator(1, "probe")
    total = sum((out * torch.randn(out.shape, generator=draw, dtype=out.dtype)).sum() for out in (y, state))
    grads = torch.autograd.grad(total, list(given.values()))
    return {"y": y, "state": state, **{f"d_{name}": grad for name, grad in zip(given, grads, strict=True)}}


@pytest.mark.parametrize("left_out", [(), ("D",), ("z",), ("delta_bias",), ("D", "z", "delta_bias")])
@pytest.mark.parametrize("softplus", [True, False])
def test_equals_the_reference(left_out: tuple[str, ...], softplus: bool):
    """Guards against errors in the formulas of the hand-written backward, for each optional input, at small and large steps."""
    missing = frozenset(left_out)
    if not softplus:  # a negative step would grow the state without bound
        missing |= {"delta_bias"}
    tensors = inputs()
    ours, theirs = (results(scan, tensors, missing, softplus) for scan in (selective_scan, reference))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert_close(value, theirs[name], atol=2e-5, rtol=2e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_gradients_by_finite_differences():
    """Compare with finite differences in fp64. The reference is not used."""
    tensors = inputs(torch.float64, length=4)

    def scan(*args: Tensor) -> tuple[Tensor, Tensor]:
        positional, (skip, gate, bias) = args[:5], args[5:]
        options = {"D": skip, "z": gate, "delta_bias": bias, "delta_softplus": True, "return_last_state": True}
        return selective_scan(*positional, **options)

    assert torch.autograd.gradcheck(scan, tuple(tensors.values()))


def test_one_step():
    """Compare with the recurrence computed by hand: h = dt B u, y = C h + D u."""
    u, dt, A, b, c, skip = (
        torch.full(shape, value)
        for shape, value in (
            ((1, 1, 1), 2.0),
            ((1, 1, 1), 0.5),
            ((1, 1), -3.0),
            ((1, 1, 1), 7.0),
            ((1, 1, 1), 11.0),
            ((1,), 13.0),
        )
    )
    y, state = selective_scan(u, dt, A, b, c, D=skip, return_last_state=True)
    assert state.item() == pytest.approx(0.5 * 7 * 2)
    assert y.item() == pytest.approx(11 * 7 + 13 * 2)


def test_bf16_inputs_are_scanned_in_fp32():
    """Guards against a recurrence that loses its state to rounding under autocast."""
    tensors = inputs()
    rounded = {name: x.detach().bfloat16() for name, x in tensors.items()}
    args = [rounded[name] for name in ("u", "delta", "A", "B", "C")]
    with torch.autocast("cpu", torch.bfloat16):
        y = selective_scan(*args)
    assert y.dtype == torch.bfloat16
    assert_close(y.float(), selective_scan(*(x.float() for x in args)).bfloat16().float())


def test_memory_is_linear_in_the_length(monkeypatch):
    """Guards against a backward that is quadratic in the length: the reference fills B x D x L x N numbers at every step."""
    sizes = []
    original = torch.autograd.graph.saved_tensors_hooks

    def kept(length: int) -> int:
        sizes.clear()
        tensors = inputs(length=length)
        with original(lambda x: (sizes.append(x.numel()), x)[1], lambda x: x):
            selective_scan(*(tensors[name] for name in ("u", "delta", "A", "B", "C")))
        return sum(sizes)

    short, long = kept(8), kept(16)
    assert long < 2.1 * short
