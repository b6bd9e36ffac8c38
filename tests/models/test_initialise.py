"""Every parameter is drawn by exactly one pattern, and each draw has the distribution that it is named after."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pitfalls.models.initialise import (
    constant,
    initialise,
    log_counting,
    log_uniform,
    normal,
    time_step_bias,
    uniform,
    uniform_fan_in,
)
from pitfalls.seeding import generator

# ------------------------------------------------------------------ patterns


def linear() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))


DRAWS = {r"0\.weight": normal(0.5), r"bias": constant(0.0), r"1\.weight": constant(1.0)}


def test_initialise_draws_zeroes_and_fills():
    module = linear()
    initialise(module, DRAWS, generator(0, "init"))
    assert module[0].weight.std() > 0.1
    assert (module[0].bias == 0).all()
    assert (module[1].bias == 0).all()
    assert (module[1].weight == 1).all()


def test_a_pattern_that_matches_nothing_is_refused():
    """Guards against defect 5 of the official code itself: the pattern named a layer that does not exist."""
    with pytest.raises(ValueError, match=r"mlp.*projection.*match no parameter of Sequential"):
        initialise(linear(), DRAWS | {r"mlp\.projection\.weight": normal(0.1)}, generator(0, "init"))


def test_a_parameter_that_matches_no_pattern_is_refused():
    with pytest.raises(ValueError, match=r"0\.bias matches 0 init patterns"):
        initialise(linear(), {r"weight": normal(0.5)}, generator(0, "init"))


def test_a_parameter_that_matches_two_patterns_is_refused():
    """Guards against an init that depends on the order of a dict."""
    with pytest.raises(ValueError, match=r"0\.weight matches 2 init patterns"):
        initialise(linear(), DRAWS | {r"weight": normal(0.5)}, generator(0, "init"))


# ------------------------------------------------------------------ draws


def drawn(draw, *shape: int) -> torch.Tensor:
    x = torch.full(shape, torch.nan)
    draw(x, generator(0, "init"))
    return x


@pytest.mark.parametrize(("shape", "fan_in"), [((200, 64), 64), ((400, 1, 4), 4)])
def test_projections_and_convolutions_get_what_torch_gives_them(shape: tuple[int, ...], fan_in: int):
    """Guards against a fan-in taken from the wrong axis: the bound has to be that of nn.Linear and nn.Conv1d."""
    layer = nn.Linear(64, 200) if len(shape) == 2 else nn.Conv1d(400, 400, 4, groups=400)
    ours, theirs = drawn(uniform_fan_in(1.0), *shape), layer.weight
    assert ours.shape == theirs.shape
    assert ours.abs().max().item() == pytest.approx(fan_in**-0.5, rel=0.01)
    assert ours.abs().max().item() == pytest.approx(theirs.abs().max().item(), rel=0.02)
    assert drawn(uniform_fan_in(0.5), *shape).abs().max().item() == pytest.approx(0.5 * fan_in**-0.5, rel=0.01)


def test_softplus_of_the_time_step_bias_is_log_uniform():
    """Guards against a bias that is the step size itself, and one outside its range."""
    dt = F.softplus(drawn(time_step_bias(1e-3, 0.1), 4000).double())
    assert dt.min().item() == pytest.approx(1e-3, rel=0.02)
    assert dt.max().item() == pytest.approx(0.1, rel=0.02)
    position = (dt.log() - math.log(1e-3)) / math.log(100)
    assert position.mean().item() == pytest.approx(0.5, abs=0.02)
    assert position.std().item() == pytest.approx(12**-0.5, abs=0.01)


def test_decay_rates():
    """Guards against A in place of A_log. Mamba has 1 to N in every channel, Mamba-2 draws one number per head."""
    torch.testing.assert_close(drawn(log_counting, 3, 4).exp(), torch.tensor([1.0, 2.0, 3.0, 4.0]).expand(3, 4))
    rates = drawn(log_uniform(1.0, 16.0), 4000).exp()
    assert rates.min().item() == pytest.approx(1.0, abs=0.05)
    assert rates.max().item() == pytest.approx(16.0, abs=0.05)
    assert rates.mean().item() == pytest.approx(8.5, abs=0.3)
    biases = drawn(uniform(-0.5, 0.5), 4000)
    assert (biases.abs() <= 0.5).all()
    assert biases.std().item() == pytest.approx(12**-0.5, abs=0.01)
