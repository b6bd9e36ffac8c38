"""The recurrence of Mamba-2 on CPUs in its dual form (Dao & Gu 2024, section 6): matrix products inside chunks.

    y_i = sum over j <= i of (C_i . B_j) exp(a_j+1 + ... + a_i) dt_j x_j  (+ the state before the chunk),  a = dt A

transformers' function pads to the chunk size and repeats B and C for every head. Here a sequence shorter than a chunk is one
chunk of its own length, and the heads of a group share C . B.
The slow reference is transformers' `mamba2_chunk_scan`. In tests/models/cpu/test_chunk_scan.py values and gradients are compared.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pitfalls.models.cpu.keywords import refuse_keywords


def chunk_scan(
    x: Float[Tensor, "B L H P"],
    dt: Float[Tensor, "B L H"],
    A: Float[Tensor, " H"],
    B: Float[Tensor, "B L G N"],
    C: Float[Tensor, "B K G N"],
    chunk_size: int,
    D: Float[Tensor, " H"] | None = None,
    dt_bias: Float[Tensor, " H"] | None = None,
    initial_states: Float[Tensor, "B H P N"] | None = None,
    dt_softplus: bool = False,
    dt_limit: Sequence[float] = (0.0, float("inf")),
    return_final_states: bool = False,
    **others: object,
) -> Float[Tensor, "B K H P"] | tuple[Float[Tensor, "B K H P"], Float[Tensor, "B H P N"]]:
    """Return the same values as mamba_ssm's ``mamba_chunk_scan_combined``. Other keywords must be None.

    Decays are in fp32, or in fp64 for fp64 inputs. Under autocast the products are in its precision, as in transformers.
    In mamba_ssm, K is L. Here ``C`` may hold only the last K positions. Then the outputs are those of the same positions.

    Returns:
        The outputs, and with ``return_final_states`` also the state after the last position.
    """
    refuse_keywords("chunked scan", others)
    precise = torch.promote_types(x.dtype, torch.float32)
    dt = dt.to(precise) if dt_bias is None else dt.to(precise) + dt_bias.to(precise)
    dt = F.softplus(dt) if dt_softplus else dt
    dt = dt.clamp(*dt_limit) if tuple(dt_limit) != (0.0, float("inf")) or not dt_softplus else dt
    steps = (x.to(precise) * dt[..., None], dt * A.to(precise), B.to(precise), C.to(precise))
    heads_first = [t.transpose(1, 2) for t in steps]
    state, outputs, length = initial_states, [], x.shape[1]
    unread = length - C.shape[1]
    for start in range(0, length, chunk_size):
        x_, a_, b_ = (t[:, :, start : start + chunk_size] for t in heads_first[:3])
        c_ = heads_first[3][:, :, max(start - unread, 0) : max(start + chunk_size - unread, 0)]
        wanted = return_final_states or start + chunk_size < length
        y, state = _chunk(x_, a_, b_, c_, state, wanted)
        outputs.append(y)
    y = torch.cat(outputs, 2) if len(outputs) > 1 else outputs[0]
    y = y.transpose(1, 2).to(precise)
    if D is not None:
        y = torch.addcmul(y, x[:, unread:].to(precise), D.to(precise)[:, None])
    if not return_final_states:
        return y
    assert state is not None
    return y, state


def _chunk(
    x: Float[Tensor, "B H Q P"],
    a: Float[Tensor, "B H Q"],
    b: Float[Tensor, "B G Q N"],
    c: Float[Tensor, "B G R N"],
    state: Float[Tensor, "B H P N"] | None,
    state_wanted: bool,
) -> tuple[Float[Tensor, "B H R P"], Float[Tensor, "B H P N"] | None]:
    """Return the outputs of the last R positions of one chunk and, if requested, the state after the chunk."""
    heads, unread = x.shape[1], x.shape[2] - c.shape[2]
    total = a.cumsum(-1)
    read = total[..., unread:]
    # no entry may come from a later position. The mask follows the exponential: exp(-inf) is ten times as slow on CPUs
    decay = (read[..., :, None] - total[..., None, :]).clamp(max=0).exp().tril(unread)
    y = (_for_heads(c @ b.transpose(-1, -2), heads) * decay) @ x
    if state is not None:
        y = y + read.exp()[..., None] * (_for_heads(c, heads) @ state.to(x.dtype).transpose(-1, -2))
    if not state_wanted:
        return y, None
    end = total[..., -1:]
    new = (x * (end - total).exp()[..., None]).transpose(-1, -2) @ _for_heads(b, heads)
    return y, new if state is None else new + end.exp()[..., None] * state.to(x.dtype)


def _for_heads(x: Float[Tensor, "B G M N"], heads: int) -> Float[Tensor, "B K M N"]:
    """Return B or C of each head. A single group is broadcast over all heads, several groups are repeated."""
    return x if x.shape[1] in (1, heads) else x.repeat_interleave(heads // x.shape[1], 1)
