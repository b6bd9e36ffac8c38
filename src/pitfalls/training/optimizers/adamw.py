"""AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) for all weights. Its settings are those of ``training``."""

from collections.abc import Iterable

import torch

from pitfalls.schemas import OptimizerConfig, TrainingConfig
from pitfalls.training.optimizers.base import Method, Part, Weight


class AdamW(Method):
    """AdamW for all weights, with weight decay on matrices and embeddings only."""

    @staticmethod
    def parts(weights: list[Weight], config: OptimizerConfig, training: TrainingConfig) -> list[Part]:
        """Return one part."""
        return [adamw_part(weights, training)]


def adamw_part(weights: Iterable[Weight], training: TrainingConfig) -> Part:
    """Return AdamW for some weights: those with weight decay first, then those without."""
    weights = list(weights)
    groups = [
        {"params": [w.parameter for w in weights if w.decayed], "weight_decay": training.weight_decay},
        {"params": [w.parameter for w in weights if not w.decayed], "weight_decay": 0.0},
    ]
    betas = (training.beta1, training.beta2)
    return Part("adamw", torch.optim.AdamW(groups, lr=training.lr, betas=betas, fused=True), ("step", "exp_avg", "exp_avg_sq"))
