"""Initial weights. A pattern of each parameter's name decides its distribution, and an explicit generator draws it."""

import math
import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

Draw = Callable[[Tensor, torch.Generator], object]
"""A function that fills a parameter in place."""


def initialise(model: nn.Module, draws: dict[str, Draw], generator: torch.Generator) -> None:
    """Fill every parameter, in the model's order, from the distribution whose pattern its name matches.

    In the paper's code, a pattern without a match silently disabled the scaled residual init. Here that is an error.

    Raises:
        ValueError: a pattern matches no parameter, or a parameter does not match exactly one pattern.
    """
    used = set()
    for name, parameter in model.named_parameters():
        matches = [pattern for pattern in draws if re.search(pattern, name)]
        if len(matches) != 1:
            raise ValueError(f"parameter {name} matches {len(matches)} init patterns of {list(draws)}; it needs exactly one")
        used.add(matches[0])
        with torch.no_grad():
            draws[matches[0]](parameter, generator)
    if unused := set(draws) - used:
        raise ValueError(f"init patterns {sorted(unused)} match no parameter of {type(model).__name__}")


def normal(std: float) -> Draw:
    """Return the normal distribution with mean 0 and standard deviation ``std``."""
    return lambda x, generator: x.normal_(0.0, std, generator=generator)


def constant(value: float) -> Draw:
    """Return a draw that sets every entry to ``value``."""
    return lambda x, generator: x.fill_(value)


def uniform_fan_in(gain: float) -> Draw:
    """Return the uniform distribution in +-gain/sqrt(fan_in), for a matrix [out, in] or a convolution [channels, 1, kernel].

    With gain 1 it is torch's own initialisation of the weights of Linear and Conv1d.
    """

    def draw(x: Tensor, generator: torch.Generator) -> Tensor:
        bound = gain / math.sqrt(x[0].numel())
        return x.uniform_(-bound, bound, generator=generator)

    return draw


def uniform(low: float, high: float) -> Draw:
    """Return the uniform distribution in [low, high]."""
    return lambda x, generator: x.uniform_(low, high, generator=generator)


def log_counting(x: Tensor, generator: torch.Generator) -> Tensor:
    """Set every row to log(1), log(2), ... This is the real S4D initialisation of A_log (Gu & Dao 2023, section 3.6)."""
    return x.copy_(torch.arange(1, x.shape[-1] + 1, device=x.device).log().expand_as(x))


def log_uniform(low: float, high: float) -> Draw:
    """Return the distribution of the logarithm of a uniform draw in [low, high], for the A_log of Mamba-2."""
    return lambda x, generator: x.uniform_(low, high, generator=generator).log_()


def time_step_bias(dt_min: float, dt_max: float) -> Draw:
    """Return the distribution of a bias whose softplus is log-uniform in [dt_min, dt_max] (Gu & Dao 2023, section 3.6)."""

    def draw(x: Tensor, generator: torch.Generator) -> Tensor:
        dt = x.uniform_(math.log(dt_min), math.log(dt_max), generator=generator).exp_()
        return x.copy_(dt + torch.log(-torch.expm1(-dt)))

    return draw
