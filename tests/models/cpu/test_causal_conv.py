"""The CPU convolution of the Mambas against transformers' own function, in values and gradients."""

import inspect

import pytest
import torch
from torch.testing import assert_close
from transformers.models.mamba import modeling_mamba

from pitfalls.models import hf_internals
from pitfalls.models.cpu import causal_conv
from pitfalls.models.cpu.causal_conv import causal_conv1d
from pitfalls.seeding import generator


def reference(*args: object, **kwargs: object) -> torch.Tensor:
    """Return the result of transformers' own function, without our dispatch."""
    bound = modeling_mamba.causal_conv1d_fn
    bound = bound.on_gpu if isinstance(bound, hf_internals.ByDevice) else bound
    return inspect.unwrap(bound)(*args, **kwargs)


@pytest.mark.parametrize("activation", ["silu", None])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("kernel", [2, 3, 4])
@pytest.mark.parametrize("length", [1, 2, 9])
def test_equals_the_reference(kernel: int, length: int, biased: bool, activation: str | None):
    """Guards against a kernel read backwards, a look into the future, and sequences shorter than the kernel."""
    draw = generator(0, "probe")
    x, weight, bias = (torch.randn(shape, generator=draw) for shape in ((3, 5, length), (5, kernel), (5,)))
    ways = []
    for convolve in (causal_conv1d, reference):
        given = [t.clone().requires_grad_() for t in ((x, weight, bias) if biased else (x, weight))]
        y = convolve(*given, activation=activation)
        ways.append([y, *torch.autograd.grad((y * torch.arange(y.numel()).view_as(y)).sum(), given)])
    for ours, theirs in zip(*ways, strict=True):
        assert_close(ours, theirs, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("at_a_time", [1, 50, 1000])
def test_rows_that_are_worked_on_together_change_nothing(monkeypatch, at_a_time: int):
    """Guards against rows that are left out or used twice, and a gradient in another dtype than x."""
    draw = generator(0, "probe")
    x = torch.randn(5, 3, 7, generator=draw).bfloat16()
    weight, bias = torch.randn(3, 4, generator=draw), torch.randn(3, generator=draw)
    ways = []
    for limit in (causal_conv.AT_A_TIME, at_a_time):
        monkeypatch.setattr(causal_conv, "AT_A_TIME", limit)
        given = [t.clone().requires_grad_() for t in (x, weight, bias)]
        y = causal_conv1d(*given, activation="silu")
        assert y.dtype == torch.bfloat16
        ways.append([y, *torch.autograd.grad((y.float() * torch.arange(y.numel()).view_as(y)).sum(), given)])
    for ours, theirs in zip(*ways, strict=True):
        assert ours.dtype == theirs.dtype
        assert_close(ours, theirs, atol=1e-4, rtol=1e-5)


def test_gradients_by_finite_differences():
    draw = generator(0, "probe")
    given = [torch.randn(shape, generator=draw, dtype=torch.float64).requires_grad_() for shape in ((2, 3, 5), (3, 4), (3,))]
    assert torch.autograd.gradcheck(lambda *args: causal_conv1d(*args, activation="silu"), given)


def test_an_activation_that_the_kernels_lack_is_refused():
    with pytest.raises(NotImplementedError, match="activation=gelu"):
        causal_conv1d(torch.zeros(1, 2, 3), torch.zeros(2, 4), activation="gelu")
