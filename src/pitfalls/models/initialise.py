"""Initial weights from an explicit generator, name by name, never from global state."""

import math
import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

Draw = Callable[[Tensor, torch.Generator], object]
"""Fills a parameter in place."""


def initialise(model: nn.Module, draws: dict[str, Draw], generator: torch.Generator) -> None:
    """Fill every parameter by the draw whose pattern its name matches, in the model's order.

    Raises:
        ValueError: a pattern matches no parameter, or a parameter matches not exactly one pattern (in the published
            code a pattern that matched nothing disabled the scaled residual init without a word).
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
    """N(0, std^2)."""
    return lambda x, generator: x.normal_(0.0, std, generator=generator)


def constant(value: float) -> Draw:
    """The same value everywhere."""
    return lambda x, generator: x.fill_(value)


def uniform_fan_in(gain: float) -> Draw:
    """Uniform in +-gain/sqrt(fan_in) of a matrix [out, in] or a depthwise convolution [channels, 1, kernel].

    With gain 1 it is what torch gives the weights of its Linear and Conv1d layers.
    """

    def draw(x: Tensor, generator: torch.Generator) -> Tensor:
        bound = gain / math.sqrt(x[0].numel())
        return x.uniform_(-bound, bound, generator=generator)

    return draw


def uniform(low: float, high: float) -> Draw:
    """Uniform in [low, high]."""
    return lambda x, generator: x.uniform_(low, high, generator=generator)


def log_counting(x: Tensor, generator: torch.Generator) -> Tensor:
    """Every row log(1), log(2), ...: the real S4D initialisation of A_log (Gu & Dao 2023, section 3.6)."""
    return x.copy_(torch.arange(1, x.shape[-1] + 1, device=x.device).log().expand_as(x))


def log_uniform(low: float, high: float) -> Draw:
    """The logarithm of a uniform draw in [low, high]: the A_log of Mamba-2."""
    return lambda x, generator: x.uniform_(low, high, generator=generator).log_()


def time_step_bias(dt_min: float, dt_max: float) -> Draw:
    """The bias whose softplus is log-uniform in [dt_min, dt_max] (Gu & Dao 2023, section 3.6)."""

    def draw(x: Tensor, generator: torch.Generator) -> Tensor:
        dt = x.uniform_(math.log(dt_min), math.log(dt_max), generator=generator).exp_()
        return x.copy_(dt + torch.log(-torch.expm1(-dt)))

    return draw
