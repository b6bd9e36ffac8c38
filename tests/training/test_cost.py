"""The counted cost of a sample agrees with arithmetic, and counting leaves nothing behind."""

import pytest
import torch

from pitfalls.seeding import generator
from pitfalls.training.cost import measure


def macs_forward(batch, width: int = 20, layers: int = 2, vocabulary: int = 20) -> int:
    """Return the multiply-adds of the forward pass of a GPT-2 for one row of next token, by hand."""
    tokens, answer = batch.prompt.shape[1] + batch.target.shape[1] - 1, batch.target.shape[1]
    block = 12 * width * width * tokens + 2 * width * tokens * tokens
    last = 2 * width * width * tokens + 10 * width * width * answer + 2 * width * tokens * answer  # keys and values of all
    return (layers - 1) * block + last + answer * width * vocabulary


def test_next_token_costs_what_arithmetic_says(make_objective, trunk, batch):
    """The backward pass has two products for each one of the forward pass."""
    cost = measure(trunk, make_objective("next_token"), batch, 0)
    assert cost.trunk_tokens == 24
    assert cost.flops == pytest.approx(3 * 2 * macs_forward(batch), rel=0.01)


def test_the_fused_attention_of_long_sequences_is_counted(make_objective, make_trunk, batch, monkeypatch):
    """Guards against FLOP that are not counted from 512 tokens on. The fused backward computes scores again: five products."""
    counted = []
    for longest in (512, 0):
        monkeypatch.setattr("pitfalls.models.cpu.attention.LONG", longest)
        counted.append(measure(make_trunk(), make_objective("next_token"), batch, 0).flops)
    assert counted[0] < counted[1] < 1.1 * counted[0]


def test_heads_and_second_encoders_are_counted(make_objective, trunk, batch):
    plain = measure(trunk, make_objective("next_token"), batch, 0)
    for name in ("multi_token", "belief_state"):
        cost = measure(trunk, make_objective(name), batch, 0)
        assert cost.trunk_tokens == plain.trunk_tokens
        assert cost.flops > 1.15 * plain.flops
    assert measure(trunk, make_objective("scheduled_sampling"), batch, 0).trunk_tokens == 2 * plain.trunk_tokens


@pytest.mark.parametrize("training", [True, False])
def test_counting_leaves_nothing_behind(make_objective, trunk, batch, training: bool):
    trunk.train(training)
    before = {name: p.clone() for name, p in trunk.named_parameters()}
    objective = make_objective("multi_token")
    measure(trunk, objective, batch, 0)
    assert trunk.training is training
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in trunk.named_parameters())
    assert all(p.grad is None for p in objective.parameters())
    assert len(trunk.lm.base_model._forward_pre_hooks) == 0


def test_rows_of_one_graph_cost_what_they_cost_by_themselves(make_objective, trunk, task):
    """Guards against a leaderboard on which a method looks cheap because the others cannot share the edges of a graph."""
    pairs = task.sample(2, generator(1, "data"), targets_per_graph=2)
    assert pairs.shared is not None
    cost = measure(trunk, make_objective("next_token"), pairs, 0)
    assert cost.trunk_tokens == 24
    assert cost == measure(trunk, make_objective("next_token"), pairs._replace(shared=None), 0)


@pytest.mark.parametrize(
    ("name", "n_losses"), [("next_token", 1), ("belief_state", 1), ("trelawney", 3), ("masked_diffusion", 3)]
)
def test_several_losses_are_counted_where_something_is_drawn(make_objective, trunk, batch, name: str, n_losses: int):
    """Guards against the cost of a single draw, and against seconds in every run for equal counts."""
    objective, taken = make_objective(name), []
    loss = objective.training_loss
    objective.training_loss = lambda *args, **kwargs: taken.append(kwargs["generator"].initial_seed()) or loss(*args, **kwargs)
    measure(trunk, objective, batch, 0)
    assert len(set(taken)) == len(taken) == n_losses
