"""One optimizer of torch as the optimizers of a run, for tests that train modules without a trunk or an objective."""

import torch

from pitfalls.training.optimizers.base import Optimizers, Part, Weight


def one_part(optimizer: torch.optim.AdamW) -> Optimizers:
    """Return an AdamW as the only part, with the parameters that it has."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    weights = [Weight(str(i), p, hidden=False, out_dim=0, sizes=()) for i, p in enumerate(parameters)]
    return Optimizers(weights, [Part("adamw", optimizer, ("step", "exp_avg", "exp_avg_sq"))])
