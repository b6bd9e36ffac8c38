"""Scheduled sampling (Bengio et al. 2015, arXiv 1506.03099; two passes, as Mihaylova & Martins 2019 do it for Transformers).

    input   prompt, target[:-1] with each token replaced, with probability p(step), by a draw from the model's own prediction
    loss    that of next token, with gold labels

p grows linearly from 0 to `rate` over `ramp_steps`. After a wrong first hop the label contradicts what the cheat would say.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from pitfalls.models.trunk import Trunk
from pitfalls.objectives.base import Spec
from pitfalls.objectives.next_token import NextToken
from pitfalls.schemas import ObjectiveConfig, check_range
from pitfalls.tasks.batch import Batch


@dataclass(kw_only=True)
class ScheduledSamplingConfig(ObjectiveConfig):
    """Parameters of `ScheduledSampling`."""

    rate: float
    """The probability at the end of the ramp."""
    ramp_steps: int
    """Optimizer steps until then."""

    def __post_init__(self) -> None:
        check_range("objective.rate", self.rate, 0, 1)
        check_range("objective.ramp_steps", self.ramp_steps, 1)


class ScheduledSampling(NextToken):
    """Next token from a past that is partly the model's own."""

    Config = ScheduledSamplingConfig

    def __init__(self, spec: Spec, config: ScheduledSamplingConfig, generator: torch.Generator) -> None:
        super().__init__(spec, config, generator)
        self.rate, self.ramp_steps = config.rate, config.ramp_steps

    def inputs(self, trunk: Trunk, batch: Batch, *, step: int, generator: torch.Generator) -> Int[Tensor, "B M"]:
        """The gold tokens, some of them replaced by what the model would have said."""
        gold = batch.target[:, :-1]
        with torch.no_grad():
            p = self.forced_logits(trunk, batch)[:, :-1].float().softmax(-1)
        torch.clear_autocast_cache()  # older torch reuses the casts of this pass, which have no gradient, in the next one
        own = torch.multinomial(p.flatten(0, 1), 1, generator=generator).view_as(gold)
        rate = self.rate * min(1.0, step / self.ramp_steps)
        return torch.where(torch.rand(gold.shape, generator=generator, device=gold.device) < rate, own, gold)
