"""The short causal convolution of Mamba and Mamba-2 on CPUs, in the layout that their projections have.

    y_t = bias + sum over k < K of w_k x_{t-K+1+k}        per channel, then silu

torch's depthwise convolution needs channels first and has a slow backward. K shifted products with a hand-written backward take a
third of its time at these sizes. A few rows are computed at a time, so that the result of one product is still in the core's
cache for the next.
The slow reference is transformers' `causal_conv1d_fn`. In tests/models/cpu/test_causal_conv.py values and gradients are compared.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pitfalls.models.cpu.keywords import refuse_keywords


def causal_conv1d(
    x: Float[Tensor, "B C L"],
    weight: Float[Tensor, "C K"],
    bias: Float[Tensor, " C"] | None = None,
    activation: str | None = None,
    **others: object,
) -> Float[Tensor, "B C L"]:
    """Return the same values as ``causal_conv1d_fn`` of the package causal_conv1d. Other keywords must be None.

    Raises:
        NotImplementedError: the activation is not silu.
    """
    refuse_keywords("causal convolution", others)
    if activation not in (None, "silu", "swish"):
        raise NotImplementedError(f"causal convolution with activation={activation}; the kernels have silu or None")
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    return _Convolution.apply(x.transpose(1, 2), weight, bias, activation is not None).transpose(1, 2)


AT_A_TIME = 1 << 16
"""Number of entries of the rows that are computed at a time: 256 kB in fp32. The backward has five such tensors."""


class _Convolution(torch.autograd.Function):
    """The depthwise causal convolution with channels last, computed in the precision of the weights."""

    @staticmethod
    def forward(
        ctx: Any, x: Float[Tensor, "B L C"], weight: Float[Tensor, "C K"], bias: Float[Tensor, " C"], activated: bool
    ) -> Float[Tensor, "B L C"]:
        precise = torch.empty(x.shape, dtype=weight.dtype, device=x.device)  # x in the precision of the weights
        before = torch.empty_like(precise)  # the output before the activation
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        ctx.n_rows, ctx.activated = max(1, AT_A_TIME // x[0].numel()), activated
        taps = weight.t().contiguous()
        for x_, x32, before_, y_ in zip(*(t.split(ctx.n_rows) for t in (x, precise, before, y)), strict=True):
            x32.copy_(x_)
            before_.copy_(bias)
            for shift, tap in _shifts(taps, x.shape[1])[::-1]:
                before_[:, shift:].addcmul_(x32[:, :-shift], tap)
            before_.addcmul_(x32, taps[-1])
            y_.copy_(F.silu(before_) if activated else before_)
        ctx.save_for_backward(precise, before, taps)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, before, taps = ctx.saved_tensors
        d_x = torch.empty_like(x, dtype=grads[0].dtype)
        d_taps, d_bias = torch.zeros_like(taps), taps.new_zeros(taps.shape[1])
        for d_y, x_, before_, d_x_ in zip(*(t.split(ctx.n_rows) for t in (grads[0], x, before, d_x)), strict=True):
            d = d_y.to(taps.dtype)
            d = torch.ops.aten.silu_backward(d, before_) if ctx.activated else d
            through = d * taps[-1]
            d_taps[-1] += (d * x_).sum((0, 1))
            for shift, tap in _shifts(taps, x.shape[1]):
                through[:, :-shift].addcmul_(d[:, shift:], tap)
                d_taps[-1 - shift] += (d[:, shift:] * x_[:, :-shift]).sum((0, 1))
            d_x_.copy_(through)
            d_bias += d.sum((0, 1))
        return d_x, d_taps.t(), d_bias, None


def _shifts(taps: Float[Tensor, "K C"], length: int) -> list[tuple[int, Tensor]]:
    """Return each shift in positions with its weights [C]. Shifts of at least the sequence's length are left out."""
    return [(shift, taps[-1 - shift]) for shift in range(1, min(len(taps), length))]
