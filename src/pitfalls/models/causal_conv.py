"""The short causal convolution of Mamba and Mamba-2 on CPUs, in the layout that their projections have.

    y_t = bias + sum over k < K of w_k x_{t-K+1+k}        per channel, then silu

torch's depthwise convolution wants channels first and has a slow backward; K shifted products with a backward written by
hand take a third of its time at these sizes. The slow reference is transformers' function; a test holds the two together,
values and gradients.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def causal_conv1d(
    x: Float[Tensor, "B C L"],
    weight: Float[Tensor, "C K"],
    bias: Float[Tensor, " C"] | None = None,
    activation: str | None = None,
    **_: object,
) -> Float[Tensor, "B C L"]:
    """What causal_conv1d's ``causal_conv1d_fn`` computes, as transformers calls it; further keywords are ignored.

    Raises:
        NotImplementedError: an activation other than silu.
    """
    if activation not in (None, "silu", "swish"):
        raise NotImplementedError(f"causal convolution with activation={activation}; the kernels have silu or None")
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    y = _Convolution.apply(x.transpose(1, 2).contiguous().to(weight.dtype), weight, bias)
    return (y if activation is None else F.silu(y)).to(x.dtype).transpose(1, 2)


class _Convolution(torch.autograd.Function):
    """Depthwise, causal, channels last."""

    @staticmethod
    def forward(
        ctx: Any, x: Float[Tensor, "B L C"], weight: Float[Tensor, "C K"], bias: Float[Tensor, " C"]
    ) -> Float[Tensor, "B L C"]:
        kernel, length = weight.shape[1], x.shape[1]
        padded = F.pad(x, (0, 0, kernel - 1, 0))
        y = torch.addcmul(bias, padded[:, :length], weight[:, 0])
        for k in range(1, kernel):
            y.addcmul_(padded[:, k : k + length], weight[:, k])
        ctx.save_for_backward(padded, weight)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        padded, weight = ctx.saved_tensors
        d_y = grads[0].contiguous()
        kernel, length = weight.shape[1], d_y.shape[1]
        d_padded = torch.zeros_like(padded)
        d_weight = torch.empty_like(weight)
        for k in range(kernel):
            d_padded[:, k : k + length].addcmul_(d_y, weight[:, k])
            d_weight[:, k] = (d_y * padded[:, k : k + length]).sum((0, 1))
        return d_padded[:, kernel - 1 :], d_weight, d_y.sum((0, 1))
