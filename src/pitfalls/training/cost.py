"""The cost of one training sample: floating-point operations, and tokens that the trunk reads. It is counted, not timed."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from pitfalls.models.trunk import Trunk
from pitfalls.objectives.base import Objective
from pitfalls.runs.records import SampleCost
from pitfalls.seeding import generator
from pitfalls.tasks.batch import Batch

N_DRAWS = 3
"""Number of losses to average over, because some objectives read more in one draw than in another."""

_ATEN = torch.ops.aten


def _as_on_a_gpu(operation: Any) -> Callable[..., int]:
    def count(*args: Any, **kwargs: Any) -> int:
        return int(flop_registry[operation](*args, **kwargs))

    count._get_raw = True  # type: ignore[attr-defined]  # torch would otherwise take tensors for shapes twice
    return count


CPU_ATTENTION = {
    _ATEN._scaled_dot_product_flash_attention_for_cpu: _as_on_a_gpu(_ATEN._scaled_dot_product_flash_attention),
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward: _as_on_a_gpu(_ATEN._scaled_dot_product_flash_attention_backward),
}
"""FLOP counts of the fused attention on a CPU, which long sequences use. torch only counts the one for GPUs."""


def measure(trunk: Trunk, objective: Objective, batch: Batch, seed: int) -> SampleCost:
    """Return the mean cost of a sample, counted in forward and backward passes over ``batch``. No weight changes.

    Each row is read separately. Training may read the edges of a graph once for several rows, but not every objective can.

    Args:
        trunk: the model. Its gradients are cleared and its train/eval mode is restored.
        objective: the objective. Its gradients are cleared.
        batch: a few rows of the training data, in canonical order.
        seed: root of the objective's random stream.
    """
    tokens, n_samples, batch = 0, 0, batch._replace(shared=None)

    def count(module: torch.nn.Module, args: tuple[()], kwargs: dict[str, torch.Tensor]) -> None:
        nonlocal tokens
        tokens += math.prod(kwargs["inputs_embeds"].shape[:2])

    handle = trunk.lm.base_model.register_forward_pre_hook(count, with_kwargs=True)
    was_training = trunk.training
    trunk.train()
    try:
        with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
            for i in range(N_DRAWS):
                draws = generator(seed, "objective", i, batch.target.device)
                undrawn = draws.get_state()
                objective.training_loss(trunk, batch, step=0, generator=draws).total.backward()
                n_samples += len(batch.prompt)
                if draws.get_state().equal(undrawn):
                    break
    finally:
        handle.remove()
        trunk.train(was_training)
        for module in (trunk, objective):
            module.zero_grad(set_to_none=True)
    return SampleCost(counter.get_total_flops() / n_samples, tokens / n_samples)
