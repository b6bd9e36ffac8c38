"""The last block of a Mamba or Mamba-2 on CPUs, with outputs at the last positions only.

Input projection, convolution and state need every position. Gate, output of the scan, norm and output projection are computed for
the requested positions only. tests/models/test_hf_internals.py checks the names of the layers, which are those of transformers.
The slow reference is transformers' block. The test tests/models/test_last_block.py compares values and gradients.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pitfalls.models.cpu.causal_conv import causal_conv1d
from pitfalls.models.cpu.chunk_scan import chunk_scan
from pitfalls.models.cpu.selective_scan import selective_scan


def mamba_from(block: Any, states: Float[Tensor, "B T D"], first: int) -> Float[Tensor, "B K D"]:
    """Return the output of a `MambaBlock` at the K = T - first positions from ``first`` on."""
    mixer = block.mixer
    whole, read = _normed(block, states, first)
    width = mixer.intermediate_size
    inner = _convolved(mixer, _rows(mixer.in_proj, whole, 0, width))
    step, b, c = mixer.x_proj(inner).split([mixer.time_step_rank, mixer.ssm_state_size, mixer.ssm_state_size], -1)
    mixed = selective_scan(
        inner.transpose(1, 2),
        F.linear(step, mixer.dt_proj.weight).transpose(1, 2),
        -mixer.A_log.float().exp(),
        b.transpose(1, 2),
        c[:, first:].transpose(1, 2),
        D=mixer.D.float(),
        z=_rows(mixer.in_proj, read, width, 2 * width).transpose(1, 2),
        delta_bias=mixer.dt_proj.bias.float(),
        delta_softplus=True,
    )
    assert isinstance(mixed, Tensor)  # no state was asked for
    return _added(block, states, first, mixer.out_proj(mixed.transpose(1, 2).to(whole.dtype)))


def mamba2_from(block: Any, states: Float[Tensor, "B T D"], first: int) -> Float[Tensor, "B K D"]:
    """Return the output of a `Mamba2Block` at the K = T - first positions from ``first`` on."""
    mixer = block.mixer
    whole, read = _normed(block, states, first)
    width, groups, size = mixer.intermediate_size, mixer.n_groups, mixer.ssm_state_size
    conv_and_step = _rows(mixer.in_proj, whole, width, mixer.in_proj.out_features)
    x_b_c, step = conv_and_step.split([mixer.conv_dim, mixer.num_heads], -1)
    x, b, c = _convolved(mixer, x_b_c).split([width, groups * size, groups * size], -1)
    mixed = chunk_scan(
        x.unflatten(-1, (mixer.num_heads, mixer.head_dim)),
        step,
        -mixer.A_log.float().exp(),
        b.unflatten(-1, (groups, size)),
        c[:, first:].unflatten(-1, (groups, size)),
        chunk_size=mixer.chunk_size,
        D=mixer.D,
        dt_bias=mixer.dt_bias,
        dt_softplus=True,
        dt_limit=mixer.time_step_limit,
    )
    assert isinstance(mixed, Tensor)  # no state was asked for
    gate = _rows(mixer.in_proj, read, 0, width)
    return _added(block, states, first, mixer.out_proj(mixer.norm(mixed.flatten(2), gate).to(whole.dtype)))


def _normed(block: Any, states: Tensor, first: int) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B K D"]]:
    """Return the input of the mixer at all T positions, and at the K positions from ``first`` on."""
    whole = block.norm(states.to(block.norm.weight.dtype))
    return whole, whole[:, first:]


def _rows(projection: nn.Linear, x: Tensor, start: int, end: int) -> Tensor:
    """Return the outputs ``start`` to ``end`` of a projection."""
    bias = None if projection.bias is None else projection.bias[start:end]
    return F.linear(x, projection.weight[start:end], bias)


def _convolved(mixer: Any, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
    weight, bias = mixer.conv1d.weight.squeeze(1), mixer.conv1d.bias
    return causal_conv1d(x.transpose(1, 2), weight, bias, activation=mixer.activation).transpose(1, 2)


def _added(block: Any, states: Tensor, first: int, mixed: Float[Tensor, "B K D"]) -> Float[Tensor, "B K D"]:
    """Return the sum of the mixer's output and the block's input."""
    residual = states[:, first:]
    return (residual.to(torch.float32) if block.residual_in_fp32 else residual) + mixed
