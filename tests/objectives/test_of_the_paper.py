"""The four objectives of the paper: closed forms, and what each of them promises beyond the contract (test_contract.py)."""

import math
from dataclasses import fields

import pytest
import torch
from torch.testing import assert_close

from pitfalls import metrics
from pitfalls.objectives.base import Loss, Objective, answer_states, cross_entropy
from pitfalls.runs.counts import FIRST_HOP
from pitfalls.schemas import ObjectiveConfig
from pitfalls.seeding import generator
from pitfalls.tasks.batch import Batch

FORCED = ["next_token", "reversed", "teacherless"]
"""Objectives with a teacher-forced reading."""


@pytest.fixture(params=["first_hop", *FORCED])
def objective_name(request: pytest.FixtureRequest) -> str:
    """Every objective of the paper in turn."""
    return request.param


def loss(objective: Objective, trunk, batch: Batch) -> Loss:
    return objective.training_loss(trunk, batch, step=0, generator=generator(0, "objective"))


def inputs_of(trunk, objective: Objective, viewed: Batch) -> torch.Tensor:
    """The tokens that the trunk embeds while the loss of a viewed batch is computed."""
    seen = []
    handle = trunk.lm.get_input_embeddings().register_forward_hook(lambda module, args, output: seen.append(args[0]))
    objective.loss(trunk, viewed, step=0, generator=generator(0, "objective"))
    handle.remove()
    assert len(seen) == 1
    return seen[0]


def with_other_token(target: torch.Tensor, place: int) -> torch.Tensor:
    other = target.clone()
    other[:, place] = (other[:, place] + 1) % 10
    return other


# ------------------------------------------------------------------ closed forms


def test_uniform_logits_cost_ln_v(objective, trunk, batch, task):
    """Guards against a loss in another unit, summed instead of averaged, or padded with positions that cost nothing."""
    for parameter in trunk.parameters():
        torch.nn.init.zeros_(parameter)
    assert loss(objective, trunk, batch).total.item() == pytest.approx(math.log(task.vocabulary.size), rel=1e-6)


def test_perfect_logits_cost_nothing(objective, make_oracle, batch):
    """Guards against an index that is off by one, and a prompt that is trained on: the oracle is wrong at every prompt token."""
    assert loss(objective, make_oracle(objective, batch), batch).total.item() == pytest.approx(0.0, abs=1e-6)


def test_perfect_logits_one_place_late_cost_a_lot(objective, make_oracle, batch):
    """Shows that the previous test can fail."""
    oracle = make_oracle(objective, batch)
    script = oracle.script
    oracle.script = lambda row: [0, *script(row)[:-1]]
    assert loss(objective, oracle, batch).total.item() > 10


def test_the_loss_is_a_mean_over_rows(objective, trunk, batch):
    """Guards against a sum: accumulation of micro-batches relies on it."""
    halves = [loss(objective, trunk, batch.rows(i, i + 4)).total for i in (0, 4)]
    assert_close(torch.stack(halves).mean(), loss(objective, trunk, batch).total)


def test_cross_entropy_of_hand_written_numbers():
    logits = torch.tensor([[[0.0, math.log(3.0)], [math.log(7.0), 0.0]]])
    expected = -(math.log(3 / 4) + math.log(1 / 8)) / 2
    assert cross_entropy(logits, torch.tensor([[1, 1]])).item() == pytest.approx(expected, rel=1e-6)
    assert cross_entropy(logits.bfloat16(), torch.tensor([[1, 1]])).dtype == torch.float32


def test_answer_states_are_those_before_the_answer():
    """The index algebra, written out once: the `=` at P-1 predicts target[0]."""
    states = torch.arange(2 * 8.0).view(2, 8, 1)
    batch = Batch(torch.zeros(2, 5, dtype=torch.long), torch.zeros(2, 3, dtype=torch.long))
    assert answer_states(states, batch)[..., 0].tolist() == [[4.0, 5.0, 6.0], [12.0, 13.0, 14.0]]


# ------------------------------------------------------------------ what the loss reads


def test_the_prompt_contributes_no_loss(objective, objective_name, trunk, batch):
    """Guards against training on the edge list, which is noise: states before the `=` get no gradient, the answer's do."""
    kept = {}

    def keep(module, args, kwargs, hidden):
        hidden.normed.retain_grad()
        kept["normed"], kept["first"] = hidden.normed, kwargs["first"]

    trunk.register_forward_hook(keep, with_kwargs=True)
    loss(objective, trunk, batch).total.backward()
    used = kept["normed"].grad.abs().amax((0, 2)) > 0
    first = batch.prompt.shape[1] - 1
    supervised = [FIRST_HOP] if objective_name == "first_hop" else list(range(batch.target.shape[1]))
    assert (kept["first"] + used.nonzero()[:, 0]).tolist() == [first + i for i in supervised]


def test_the_last_target_token_is_never_an_input(objective, trunk, batch):
    """Guards against a label that leaks into the inputs."""
    viewed = objective.view(batch)
    other = Batch(viewed.prompt, with_other_token(viewed.target, -1))
    assert torch.equal(inputs_of(trunk, objective, viewed), inputs_of(trunk, objective, other))


@pytest.mark.parametrize("name", ["next_token", "reversed"])
def test_earlier_target_tokens_are_inputs_of_teacher_forcing(make_objective, trunk, batch, name):
    """Shows that the previous test can fail."""
    objective = make_objective(name)
    viewed = objective.view(batch)
    expected = torch.cat([viewed.prompt, viewed.target[:, :-1]], 1)
    assert torch.equal(inputs_of(trunk, objective, viewed), expected)


def test_teacherless_inputs_hold_no_target_token(make_objective, trunk, batch, task):
    """Guards against gold tokens in the input: after the prompt there are dummies only."""
    tokens = inputs_of(trunk, make_objective("teacherless"), batch)
    assert torch.equal(tokens[:, : task.prompt_length], batch.prompt)
    dummy = task.vocabulary.id("<dummy>")
    assert (tokens[:, task.prompt_length :] == dummy).all()
    assert tokens.shape[1] == task.sequence_length


def test_first_hop_reads_the_start_and_nothing_more(make_objective, trunk, batch, task):
    tokens = inputs_of(trunk, make_objective("first_hop"), batch)
    assert torch.equal(tokens, torch.cat([batch.prompt, batch.prompt[:, -3:-2]], 1))


def test_the_loss_sees_every_supervised_token(objective, objective_name, trunk, batch):
    """Guards against a target position that is never trained (and, for first_hop, one that is)."""
    before = loss(objective, trunk, batch).total
    moved = [
        i
        for i in range(batch.target.shape[1])
        if not torch.equal(loss(objective, trunk, Batch(batch.prompt, with_other_token(batch.target, i))).total, before)
    ]
    # first_hop has target[0] as an input: in data it is always the start that the prompt names
    assert moved == ([0, 1] if objective_name == "first_hop" else [0, 1, 2, 3])


# ------------------------------------------------------------------ views


def test_reversed_runs_from_the_goal_to_the_start(make_objective, batch):
    """Guards against a view that does nothing, or that is applied twice (defect 11 of the official code)."""
    target = make_objective("reversed").view(batch).target
    assert target.tolist() == [row[::-1] for row in batch.target.tolist()]


def test_reversed_is_next_token_on_flipped_targets(make_objective, trunk, batch):
    flipped = Batch(batch.prompt, batch.target.flip(1))
    ours, theirs = make_objective("reversed"), make_objective("next_token")
    assert torch.equal(loss(ours, trunk, batch).total, loss(theirs, trunk, flipped).total)
    assert not torch.equal(loss(ours, trunk, batch).total, loss(theirs, trunk, batch).total)


# ------------------------------------------------------------------ the teacher-forced reading


@pytest.mark.parametrize("name", FORCED)
def test_the_loss_is_that_of_the_forced_logits(make_objective, trunk, batch, name):
    """Guards against an evaluation that reads another place than training does."""
    objective = make_objective(name)
    viewed = objective.view(batch)
    per_token = metrics.negative_log_likelihood(objective.forced_logits(trunk, viewed), viewed.target)
    assert_close(per_token.mean(), loss(objective, trunk, batch).total)


def test_teacherless_reads_no_target_at_all(make_objective, trunk, batch):
    objective = make_objective("teacherless")
    forced = objective.forced_logits(trunk, batch)
    assert torch.equal(forced, objective.forced_logits(trunk, Batch(batch.prompt, batch.target.roll(1, 0))))
    assert torch.equal(forced, objective.parallel_logits(trunk, batch.prompt, batch.target.shape[1]))


def test_first_hop_is_one_position_of_next_token(make_objective, trunk, batch):
    """Guards against another experiment than isolation: the loss must be the same, on the same token alone."""
    forced = make_objective("next_token").forced_logits(trunk, batch)
    expected = metrics.negative_log_likelihood(forced, batch.target)[:, FIRST_HOP].mean()
    assert_close(loss(make_objective("first_hop"), trunk, batch).total, expected)


def test_first_hop_has_no_forced_reading_and_supervises_one_position(make_objective, trunk, batch):
    objective = make_objective("first_hop")
    assert objective.forced_logits(trunk, batch) is None
    assert objective.supervised() == (FIRST_HOP,)


@pytest.mark.parametrize("method", ["loss", "step_logits", "parallel_logits"])
def test_what_an_objective_does_not_have_is_refused_by_name(make_objective, trunk, batch, method):
    """Guards against an abstract method that returns None."""
    base = Objective(make_objective("next_token").spec, ObjectiveConfig(name="base"), generator(0, "objective_init"))
    arguments = {
        "loss": ((trunk, batch), {"step": 0, "generator": generator(0, "objective")}),
        "step_logits": ((trunk, batch.prompt, None), {}),
        "parallel_logits": ((trunk, batch.prompt, 4), {}),
    }
    args, kwargs = arguments[method]
    with pytest.raises(NotImplementedError, match="Objective"):
        getattr(base, method)(*args, **kwargs)
    assert base.forced_logits(trunk, batch) is None


def test_a_loss_has_a_total_and_parts():
    assert [field.name for field in fields(Loss)] == ["total", "parts"]


def test_a_view_that_moves_rows_shares_no_edges(make_objective, make_trunk, task, loss_of):
    """Guards against a new objective whose view shuffles rows, so that neighbours no longer belong to one graph."""
    pairs = task.sample(4, generator(1, "data"), targets_per_graph=2)
    objective, trunk = make_objective("next_token"), make_trunk()
    honest = loss_of(objective, trunk, pairs)
    order = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])
    objective.view = lambda batch: batch._replace(prompt=batch.prompt[order], target=batch.target[order])
    torch.testing.assert_close(loss_of(objective, trunk, pairs), honest, rtol=1e-5, atol=1e-6)
