"""The recurrence of Mamba-1 on CPUs (Gu & Dao 2023, eq. 2 with the discretisation of section 3.2), step by step.

    h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t          y_t = C_t h_t  (+ D u_t, then times silu(z_t))

transformers' loop indexes tensors of B x D x L x N, which makes its backward quadratic in L. Here each step touches one state,
which fits a core's cache. The backward is written by hand: it keeps the states and computes the decays again. Scans of
logarithmic depth are slower on CPUs (docs/lab_notes/2026-11.md).
The slow reference is transformers' `mamba_selective_scan`: tests/models/cpu/test_selective_scan.py compares values and gradients.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pitfalls.models.cpu.keywords import refuse_keywords


def selective_scan(
    u: Float[Tensor, "B D L"],
    delta: Float[Tensor, "B D L"],
    A: Float[Tensor, "D N"],
    B: Float[Tensor, "B N L"],
    C: Float[Tensor, "B N K"],
    D: Float[Tensor, " D"] | None = None,
    z: Float[Tensor, "B D K"] | None = None,
    delta_bias: Float[Tensor, " D"] | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    **others: object,
) -> Float[Tensor, "B D K"] | tuple[Float[Tensor, "B D K"], Float[Tensor, "B D N"]]:
    """Return the same values as mamba_ssm's ``selective_scan_fn``. Other keywords must be None, or choose a method.

    The computation is in fp32 also under autocast, and in fp64 for fp64 inputs. The outputs have the dtype of ``u``.
    In mamba_ssm, K is L. Here ``C`` and ``z`` may hold only the last K positions. Then so do the outputs.

    Returns:
        The outputs, and with ``return_last_state`` also the state after the last step.
    """
    refuse_keywords("selective scan", others, ("use_mambapy", "use_associative_scan"))
    with torch.autocast(u.device.type, enabled=False):
        precise = torch.promote_types(u.dtype, torch.float32)
        x, dt, b, c = (_channels_last(t).to(precise) for t in (u, delta, B, C))
        if delta_bias is not None:
            dt = dt + delta_bias.to(precise)
        if delta_softplus:
            dt = F.softplus(dt)
        y, last = _Scan.apply(dt, dt * x, A.to(precise).t().contiguous(), b, c)
        if D is not None:
            y = torch.addcmul(y, x[:, x.shape[1] - y.shape[1] :], D.to(precise))
        if z is not None:
            y = y * F.silu(_channels_last(z).to(precise))
    y = y.to(u.dtype).transpose(1, 2)
    return (y, last.transpose(1, 2)) if return_last_state else y


def _channels_last(x: Float[Tensor, "B K L"]) -> Float[Tensor, "B L K"]:
    """Return the tensor with channels last. Elementwise operations on mixed layouts take ten times as long here."""
    return x.transpose(1, 2).contiguous()


class _Scan(torch.autograd.Function):
    """The recurrence h_t = exp(dt_t A) h_{t-1} + b_t x_t with the output y_t = c_t h_t. The state h_t is [B,N,D]."""

    @staticmethod
    def forward(
        ctx: Any,
        dt: Float[Tensor, "B L D"],
        x: Float[Tensor, "B L D"],
        A: Float[Tensor, "N D"],
        b: Float[Tensor, "B L N"],
        c: Float[Tensor, "B K N"],
    ) -> tuple[Float[Tensor, "B K D"], Float[Tensor, "B N D"]]:
        state = x.new_zeros(x.shape[0], A.shape[0], x.shape[2])
        states, outputs = [state], []
        decay = torch.empty_like(state)
        for dt_t, x_t, b_t, c_t in zip(*_by_step(x.shape[1], dt, x, b, c), strict=True):
            torch.mul(dt_t, A, out=decay).exp_()
            state = (decay * state).baddbmm_(b_t.transpose(1, 2), x_t)
            if c_t is not None:
                outputs.append(torch.bmm(c_t, state))
            states.append(state)  # one tensor per step: a single large one would be new memory from the system at every call
        ctx.save_for_backward(dt, x, A, b, c, *states)
        return torch.cat(outputs, 1), state.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        dt, x, A, b, c, *states = ctx.saved_tensors
        d_h = grads[1].contiguous().clone()  # gradient of the loss by the state after step t
        d_A = torch.zeros_like(d_h)  # one for each row of the batch, summed at the end
        decay = torch.empty_like(d_h)
        d_dt: list[Tensor] = []
        d_x: list[Tensor] = []
        d_b: list[Tensor] = []
        d_c: list[Tensor] = []
        by_step = zip(*_by_step(x.shape[1], dt, x, b, c, grads[0]), states[:-1], states[1:], strict=True)
        for dt_t, x_t, b_t, c_t, d_y, before, after in reversed(list(by_step)):
            if c_t is not None and d_y is not None:
                d_c.append(torch.bmm(d_y, after.transpose(1, 2)))
                d_h.baddbmm_(c_t.transpose(1, 2), d_y)
            d_b.append(torch.bmm(x_t, d_h.transpose(1, 2)))
            d_x.append(torch.bmm(b_t, d_h))
            torch.mul(dt_t, A, out=decay).exp_()
            d_h.mul_(decay)
            torch.mul(d_h, before, out=decay)  # gradient of the loss by dt_t A
            d_A.addcmul_(decay, dt_t)
            d_dt.append(decay.mul_(A).sum(1, keepdim=True))
        whole = [torch.cat(steps[::-1], 1) for steps in (d_dt, d_x, d_b, d_c)]
        return whole[0], whole[1], d_A.sum(0), whole[2], whole[3]


def _by_step(length: int, *tensors: Float[Tensor, "B _ _"]) -> list[list[Any]]:
    """Return for each step the slice [B,1,_] of each tensor. A tensor of only the last steps gives None for the first ones."""
    return [[None] * (length - t.shape[1]) + list(t.unsqueeze(2).unbind(1)) for t in tensors]
