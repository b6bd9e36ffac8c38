"""Scheduled sampling (Bengio et al. 2015, arXiv 1506.03099), in two passes as in Mihaylova & Martins (2019) for Transformers.

    input   prompt, target[:-1] with each token replaced, with probability p(step), by a draw from the model's own prediction
    loss    that of next token, with gold labels

p grows linearly from 0 to ``rate`` over ``ramp_steps``. After a wrong first hop the label contradicts the cheat.
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
    """The parameters of `ScheduledSampling`."""

    rate: float
    """Probability of a replacement at the end of the ramp."""
    ramp_steps: int
    """Length of the ramp in optimizer steps."""

    def __post_init__(self) -> None:
        check_range("objective.rate", self.rate, 0, 1)
        check_range("objective.ramp_steps", self.ramp_steps, 1)


class ScheduledSampling(NextToken):
    """Next token from inputs that are partly the model's own answers."""

    Config = ScheduledSamplingConfig

    def __init__(self, spec: Spec, config: ScheduledSamplingConfig, generator: torch.Generator) -> None:
        super().__init__(spec, config, generator)
        self.rate, self.ramp_steps = config.rate, config.ramp_steps

    def inputs(self, trunk: Trunk, batch: Batch, *, step: int, generator: torch.Generator) -> Int[Tensor, "B M"]:
        """Return the gold tokens, some of them replaced by draws from the model's predictions."""
        gold = batch.target[:, :-1]
        with torch.no_grad():
            p = self.forced_logits(trunk, batch)[:, :-1].float().softmax(-1)
        torch.clear_autocast_cache()  # otherwise older torch reuses this pass's casts, which have no gradient
        own = torch.multinomial(p.flatten(0, 1), 1, generator=generator).view_as(gold)
        rate = self.rate * min(1.0, step / self.ramp_steps)
        return torch.where(torch.rand(gold.shape, generator=generator, device=gold.device) < rate, own, gold)
