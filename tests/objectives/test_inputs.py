"""Objectives that change the inputs of next token: masked input, scheduled sampling, registers, lookahead."""

import pytest
import torch
from torch.testing import assert_close

from pitfalls.evaluation import decoding
from pitfalls.metrics import negative_log_likelihood
from pitfalls.objectives.next_token import NextToken
from pitfalls.schemas import ConfigError
from pitfalls.seeding import generator


def inputs(objective, trunk, batch, step: int = 0, seed: int = 0) -> torch.Tensor:
    return objective.inputs(trunk, batch, step=step, generator=generator(seed, "objective"))


def total(objective, trunk, batch, seed: int = 0):
    return objective.training_loss(trunk, batch, step=0, generator=generator(seed, "objective"))


# ------------------------------------------------------------------ masked input


def test_masks_replace_the_given_share(make_objective, trunk, task):
    batch = task.sample(2000, generator(0, "data"))
    objective = make_objective("masked_input", rate=0.3)
    seen = inputs(objective, trunk, batch)
    replaced = seen != batch.target[:, :-1]
    assert (seen[replaced] == task.vocabulary.id("<mask>")).all()
    assert replaced.float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert replaced.float().mean(0).tolist() == pytest.approx([0.3] * 3, abs=0.05), "every place alike"


def test_random_replacements_are_node_values(make_objective, trunk, task):
    batch = task.sample(2000, generator(0, "data"))
    seen = inputs(make_objective("masked_input", rate=1.0, by="random"), trunk, batch)
    assert set(seen.unique().tolist()) == set(range(task.n_values))
    assert (seen == batch.target[:, :-1]).float().mean().item() == pytest.approx(1 / task.n_values, abs=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"rate": 1.5}, "objective.rate=1.5: it must be >= 0 and <= 1"), ({"by": "x"}, "objective.by=x: choose one of mask")],
)
def test_mistakes_are_refused(make_objective, changes, message):
    with pytest.raises(ConfigError, match=message):
        make_objective("masked_input", **changes)


# ------------------------------------------------------------------ scheduled sampling


def test_sampling_begins_with_gold_tokens_and_ends_with_its_own(make_objective, make_scripted, task, batch):
    """With a trunk that is sure of the token 9, all inputs are 9 at the end of the ramp, and half of them half way."""
    sure = make_scripted(task, lambda row: [9] * len(row))
    objective = make_objective("scheduled_sampling", rate=1.0, ramp_steps=100)
    gold = batch.target[:, :-1]
    assert torch.equal(inputs(objective, sure, batch, step=0), gold)
    assert (inputs(objective, sure, batch, step=100) == 9).all()
    assert (inputs(objective, sure, batch, step=10_000) == 9).all()
    many = task.sample(500, generator(3, "data"))
    changed = (inputs(objective, sure, many, step=50) != many.target[:, :-1])[many.target[:, :-1] != 9]
    assert changed.float().mean().item() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(("step", "share"), [(0, 0.0), (1, 0.2), (3, 0.6), (4, 0.8), (5, 0.8), (6, 0.8)])
def test_the_ramp_grows_by_equal_steps_and_ends_at_the_rate(make_objective, make_scripted, task, step, share):
    """Guards against a ramp that is one step off: with few steps, each of them changes a large share of the inputs."""
    sure = make_scripted(task, lambda row: [9] * len(row))
    batch = task.sample(1000, generator(3, "data"))
    gold = batch.target[:, :-1]
    objective = make_objective("scheduled_sampling", rate=0.8, ramp_steps=4)
    replaced = (inputs(objective, sure, batch, step=step) == 9)[gold != 9]
    assert replaced.float().mean().item() == pytest.approx(share, abs=0.03)


def test_a_draw_stands_where_its_gold_token_stood(make_objective, make_scripted, task, batch):
    """Guards against draws that are one place off: a model that copies the gold answer draws exactly the gold inputs."""
    known = {tuple(p): t for p, t in zip(batch.prompt.tolist(), batch.target.tolist(), strict=True)}
    script = lambda row: ([0] * (task.prompt_length - 1) + known[tuple(row[: task.prompt_length])])[: len(row)]  # noqa: E731
    objective = make_objective("scheduled_sampling", rate=1.0, ramp_steps=1)
    assert torch.equal(inputs(objective, make_scripted(task, script), batch, step=5), batch.target[:, :-1])


def test_draws_get_no_gradient_and_labels_stay_gold(make_objective, make_trunk, batch):
    trunk = make_trunk()
    objective = make_objective("scheduled_sampling", rate=1.0, ramp_steps=1)
    seen = inputs(objective, trunk, batch, step=1)
    hidden = trunk(torch.cat([batch.prompt, seen], 1))
    states = hidden.normed[:, batch.prompt.shape[1] - 1 :]
    expected = negative_log_likelihood(trunk.logits(states), batch.target).mean()
    loss = objective.training_loss(trunk, batch, step=1, generator=generator(0, "objective")).total
    assert_close(loss, expected)
    gradients = []
    for value in (loss, expected):
        trunk.zero_grad()
        value.backward()
        gradients.append([p.grad.clone() for p in trunk.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------ registers


@pytest.mark.parametrize("seed", range(6))
def test_registers_follow_the_paper(make_objective, trunk, batch, seed: int):
    """Each register in a pass of its own, behind the tokens that it may see, at the position that its label is predicted from."""
    objective = make_objective("mutor", weight=0.25)
    loss = total(objective, trunk, batch, seed)
    offset = int(torch.randint(1, 4, (), generator=generator(seed, "objective")))
    n_prompt, costs = batch.prompt.shape[1], []
    for j in range(4 - offset):
        register = torch.full((8, 1), objective.spec.vocabulary.id("<reg>"))
        sequence = torch.cat([batch.prompt, batch.target[:, :j], register], 1)
        positions = torch.arange(n_prompt + j + 1)
        positions[-1] = n_prompt - 1 + j + offset
        logits = trunk.logits(trunk(sequence, positions=positions[None]).normed[:, -1:])
        costs.append(negative_log_likelihood(logits, batch.target[:, j + offset, None]).mean())
    assert_close(loss.parts["register"], 0.25 * torch.stack(costs).mean())


def test_registers_are_invisible_to_everything_else(make_objective, trunk, batch):
    """Guards against a mask that is ignored: next token is what it is without registers."""
    plain = make_objective("next_token")
    expected = 0.75 * total(plain, trunk, batch).total
    assert_close(total(make_objective("mutor", weight=0.25), trunk, batch).parts["next_token"], expected)


def test_offsets_leave_out_the_next_token_and_keep_to_the_horizon(make_objective, trunk, batch):
    """Offset 0 would teach the registers the cheat (appendix A.3)."""

    def n_registers(horizon: int | None) -> set[int]:
        objective, seen = make_objective("mutor", horizon=horizon), set()
        handle = trunk.register_forward_pre_hook(lambda module, args: seen.add(args[0].shape[1] - batch.prompt.shape[1] - 3))
        for seed in range(30):
            total(objective, trunk, batch, seed)
        handle.remove()
        return seen

    assert n_registers(None) == {1, 2, 3}
    assert n_registers(2) == {3}
    assert n_registers(9) == {1, 2, 3}, "a path shorter than d_max has its whole length"


# ------------------------------------------------------------------ lookahead


def test_a_lookahead_is_a_piece_of_the_future(make_objective, trunk, batch, task):
    """The trunk reads the prompt, <T>, consecutive target tokens, </T> and the target but for its last token."""
    objective, seen = make_objective("trelawney", rate=1.0), []
    trunk.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    opened, closed = task.vocabulary.id("<T>"), task.vocabulary.id("</T>")
    for seed in range(40):
        total(objective, trunk, batch, seed)
    spans = set()
    for sequence in seen:
        written = sequence[:, task.prompt_length :]
        n = written.shape[1] - 2 - 3
        assert (written[:, 0] == opened).all()
        assert (written[:, n + 1] == closed).all()
        assert torch.equal(written[:, n + 2 :], batch.target[:, :-1])
        places = [k for k in range(4) if torch.equal(written[:, 1 : n + 1], batch.target[:, k : k + n])]
        assert len(places) == 1
        spans.add((places[0], n))
    assert spans == {(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)}


def test_the_lookahead_is_scored_but_for_its_opening(make_objective, make_scripted, task, batch):
    """A trunk that knows everything but that a lookahead begins pays nothing."""
    known = {tuple(p): t for p, t in zip(batch.prompt.tolist(), batch.target.tolist(), strict=True)}
    closed, pad = task.vocabulary.id("</T>"), task.vocabulary.id("<pad>")

    def knows(row: list[int]) -> list[int]:
        written = [*row[task.prompt_length + 1 :], known[tuple(row[: task.prompt_length])][-1]]
        return [pad] * task.prompt_length + written

    objective = make_objective("trelawney", rate=1.0)
    assert total(objective, make_scripted(task, knows), batch).total.item() == pytest.approx(0.0, abs=1e-6)
    wrong = make_scripted(task, lambda row: [pad if token == closed else token for token in knows(row)])
    assert total(objective, wrong, batch).total.item() > 1


def test_the_rate_is_that_of_batches(make_objective, trunk, batch):
    objective = make_objective("trelawney", rate=0.25)
    drawn = [bool(total(objective, trunk, batch, seed).parts["lookahead"] > 0) for seed in range(200)]
    assert sum(drawn) / 200 == pytest.approx(0.25, abs=0.1)


def test_a_written_lookahead_is_read_again(make_objective, make_scripted, task, batch):
    """The model writes a z whose length differs from row to row, or that never ends, and its answer follows from it."""
    opened, closed = task.vocabulary.id("<T>"), task.vocabulary.id("</T>")

    def writes(row: list[int]) -> list[int]:
        answer = row[task.prompt_length :]
        n = row[0] % 6  # tokens of z: five are too many
        wanted = [0] * len(row)
        if opened in answer and closed not in answer:
            for t in range(task.prompt_length, len(row)):
                wanted[t] = closed if t - task.prompt_length == n else 7
        else:  # it says how long the z was, and then 1
            wanted[-1] = answer.index(closed) - 1 if answer[-1] == closed else 1
        return wanted

    answer = decoding.decode(make_scripted(task, writes), make_objective("trelawney"), batch.prompt, 4, procedure="lookahead")
    lengths = [min(row[0] % 6, 4) for row in batch.prompt.tolist()]
    assert len(set(lengths)) > 2
    assert answer.tolist() == [[n, 1, 1, 1] for n in lengths]


def test_all_of_them_are_next_token_otherwise(make_objective):
    for name in ("masked_input", "scheduled_sampling", "mutor", "trelawney"):
        objective = make_objective(name)
        assert isinstance(objective, NextToken)
        assert type(objective).step_logits is NextToken.step_logits
        assert type(objective).forced_logits is NextToken.forced_logits
