"""Every objective on a trunk with convolutions: what a mask or an order hides does not come through them."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from pitfalls.evaluation import decoding
from pitfalls.experiment.build import build
from pitfalls.objectives import NAMES, objective_class
from pitfalls.objectives.base import Objective
from pitfalls.seeding import generator
from tests.conftest import TINY_CONV

FORCED = [name for name in NAMES if objective_class(name).forced_logits is not Objective.forced_logits]
"""Objectives with a teacher-forced reading."""


@pytest.fixture
def conv(make_trunk):
    return make_trunk(config=TINY_CONV).eval()


def other(tokens: torch.Tensor) -> torch.Tensor:
    """Return another node value for each node value of G(2,4) on 10 values."""
    return (tokens + 1) % 10


@pytest.mark.parametrize("name", FORCED)
def test_a_forced_reading_does_not_see_later_tokens(make_objective, conv, batch, name):
    """Guards against a convolution that looks ahead, or that finds a neighbour which the mask hides."""
    objective = make_objective(name)
    viewed = objective.view(batch)
    before = objective.forced_logits(conv, viewed)
    for place in range(viewed.target.shape[1]):
        target = viewed.target.clone()
        target[:, place] = other(target[:, place])
        after = objective.forced_logits(conv, viewed._replace(target=target))
        assert_close(after[:, : place + 1], before[:, : place + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in FORCED if "autoregressive" in objective_class(name).decoders])
def test_answers_with_a_cache_equal_answers_without(make_objective, conv, batch, name):
    """Guards against a convolution that starts anew at each cached call."""
    objective = make_objective(name)
    viewed = objective.view(batch)
    tokens, n = torch.cat([viewed.prompt, viewed.target], 1), viewed.prompt.shape[1]
    cache = conv.new_cache(tokens.shape[1])
    cached = [objective.step_logits(conv, tokens[:, :n], cache)]
    cached += [objective.step_logits(conv, tokens[:, n + i : n + i + 1], cache) for i in range(viewed.target.shape[1] - 1)]
    plain = [objective.step_logits(conv, tokens[:, : n + i], None) for i in range(viewed.target.shape[1])]
    assert_close(torch.stack(cached), torch.stack(plain), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_read_once_gives_the_same_loss_and_gradients(make_objective, make_trunk, task, name):
    """Guards against a shared beginning whose last tokens the convolution does not see, or through which no gradient passes."""
    pairs = task.sample(4, generator(1, "data"), targets_per_graph=2)
    objective, results = make_objective(name), []
    for rows in (pairs, pairs._replace(shared=None)):
        trunk = make_trunk(config=TINY_CONV)
        total = objective.training_loss(trunk, rows, step=500, generator=generator(0, "objective")).total
        total.backward()
        results.append([total.detach(), *(p.grad for p in trunk.parameters())])
    for ours, reference in zip(*results, strict=True):
        assert_close(ours, reference, rtol=1e-4, atol=1e-5)


def test_registers_of_mutor_see_what_they_may_and_nobody_sees_them(make_objective, conv, batch):
    """Guards against a register that hears of the token after it, or a token that hears of a register."""
    objective = make_objective("mutor")
    read = torch.cat([batch.prompt, batch.target[:, :-1]], 1)
    n_read, n_prompt, n_registers = read.shape[1], batch.prompt.shape[1], 2
    mask = objective._mask(batch, n_read, n_registers)[None]
    positions = torch.cat([torch.arange(n_read), n_prompt + 1 + torch.arange(n_registers)])[None]

    def states(tokens: torch.Tensor, register: str = "<reg>") -> torch.Tensor:
        registers = tokens.new_full((len(tokens), n_registers), objective.spec.vocabulary.id(register))
        return conv(torch.cat([tokens, registers], 1), mask=mask, positions=positions).normed

    before = states(read)
    assert_close(states(read, "<mask>")[:, :n_read], before[:, :n_read])
    assert_close(before[:, :n_read], conv(read).normed, rtol=1e-4, atol=1e-5)
    for j in range(n_registers):
        tokens = read.clone()
        tokens[:, n_prompt + j] = other(tokens[:, n_prompt + j])
        after = states(tokens)
        assert_close(after[:, n_read : n_read + j + 1], before[:, n_read : n_read + j + 1])
        if j + 1 < n_registers:
            assert not torch.allclose(after[:, n_read + j + 1], before[:, n_read + j + 1], atol=1e-4)


def test_a_token_of_masked_diffusion_sees_both_sides(make_objective, conv, batch):
    """Guards against a convolution that keeps bidirectional attention from the later tokens."""
    objective = make_objective("masked_diffusion")
    mask = objective.spec.vocabulary.id("<mask>")
    tokens = batch.target.clone()
    tokens[:, 0] = mask
    before = objective.infill_logits(conv, batch.prompt, tokens)
    tokens[:, -1] = other(tokens[:, -1])
    assert not torch.allclose(objective.infill_logits(conv, batch.prompt, tokens)[:, 0], before[:, 0], atol=1e-4)


def test_a_slot_of_random_order_sees_the_slots_written_before_it(make_objective, conv, batch):
    """Guards against the token at the place before a slot, if that is written later."""
    objective, slots = make_objective("random_order"), torch.tensor([3, 1, 2, 0]).expand(8, 4)
    tokens = batch.target.gather(1, slots)
    before = objective._ordered_logits(conv, batch.prompt, tokens[:, :-1], slots)
    for place in range(3):
        changed = tokens.clone()
        changed[:, place] = other(changed[:, place])
        after = objective._ordered_logits(conv, batch.prompt, changed[:, :-1], slots)
        assert_close(after[:, : place + 1], before[:, : place + 1], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(after[:, place + 1 :], before[:, place + 1 :], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_every_objective_answers(make_objective, conv, task, batch, name):
    objective = make_objective(name)
    for procedure in objective.decoders:
        answer = decoding.decode(conv, objective, batch.prompt, task.target_length, procedure=procedure)
        assert answer.shape == batch.target.shape


@pytest.mark.parametrize("name", ["belief_state", "multi_token", "sequential_multi_token"])
def test_blocks_and_encoders_of_an_objective_are_like_the_trunk(config, objective_preset, name):
    """Guards against an objective's own blocks that are plain GPT-2 beside a trunk with convolutions."""
    config = replace(config, model=TINY_CONV, objective=objective_preset(name))
    run = build(config)
    batch = run.task.sample(4, generator(0, "data"))
    run.objective.training_loss(run.trunk, batch, step=0, generator=generator(0, "objective")).total.backward()
    convolutions = [p for key, p in run.objective.named_parameters() if key.endswith("conv.weight")]
    assert convolutions
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in convolutions)
