"""Teacherless training (Bachmann & Nagarajan 2024, section 5.1), with the dummy tokens of PaSS (Monea et al. 2023).

    input   prompt, $ $ ... $  (L-1 dummies)        loss   mean over i of -log p(target[i] | prompt, i dummies)

No target token is an input, neither in training nor at test time, so there is nothing to cheat from. All L tokens are
predicted in one pass.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pitfalls.models.trunk import Trunk
from pitfalls.objectives.base import Loss, Objective, cross_entropy
from pitfalls.schemas import ObjectiveConfig
from pitfalls.tasks.batch import Batch, Shared


class Teacherless(Objective):
    """Prediction of the whole target from the prompt, in one pass."""

    decoders = ("parallel",)

    @classmethod
    def horizon_for(cls, config: ObjectiveConfig, target_length: int) -> int:
        """Return L: a state predicts the whole target."""
        return target_length

    def loss(self, trunk: Trunk, batch: Batch, *, step: int, generator: torch.Generator) -> Loss:
        """Return the cross-entropy of the target tokens."""
        total = cross_entropy(self.forced_logits(trunk, batch), batch.target)
        return Loss(total, {"teacherless": total})

    def parallel_logits(self, trunk: Trunk, prompt: Int[Tensor, "B P"], length: int) -> Float[Tensor, "B L V"]:
        """Return the logits of the target: the ``=`` predicts token 0, each dummy the next token."""
        return self._logits(trunk, prompt, length, None)

    def forced_logits(self, trunk: Trunk, batch: Batch) -> Float[Tensor, "B L V"]:
        """Return the parallel logits, which depend on no target token at all."""
        return self._logits(trunk, batch.prompt, batch.target.shape[1], batch.shared)

    def _logits(self, trunk: Trunk, prompt: Int[Tensor, "B P"], length: int, shared: Shared | None) -> Float[Tensor, "B L V"]:
        dummies = prompt.new_full((len(prompt), length - 1), self.spec.vocabulary.id("<dummy>"))
        hidden = trunk(torch.cat([prompt, dummies], 1), first=prompt.shape[1] - 1, shared=shared)
        return trunk.logits(hidden.normed)
