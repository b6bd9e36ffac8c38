"""Masked diffusion and random order: what is masked, what is read in which order, and how answers are filled in."""

import pytest
import torch
from torch.testing import assert_close

from pitfalls.evaluation import decoding
from pitfalls.metrics import negative_log_likelihood
from pitfalls.models.trunk import Hidden, Trunk
from pitfalls.seeding import generator
from pitfalls.tasks.batch import Batch


def total(objective, trunk, batch, seed: int = 0) -> torch.Tensor:
    return objective.training_loss(trunk, batch, step=0, generator=generator(seed, "objective")).total


# ------------------------------------------------------------------ masked diffusion


def test_masks_are_drawn_at_a_rate_of_each_row(make_objective, task):
    objective = make_objective("masked_diffusion")
    target = task.sample(4000, generator(0, "data")).target
    masked, rate = objective.draw_mask(target, generator(0, "objective"))
    assert masked.any(1).all(), "a row without a mask would teach nothing"
    assert rate.mean().item() == pytest.approx(0.5, abs=0.02)
    for low in (0.5, 0.9):
        rows = (rate[:, 0] >= low) & (rate[:, 0] < low + 0.1)
        assert masked[rows].float().mean().item() == pytest.approx(low + 0.05, abs=0.05)
    scarce = masked[rate[:, 0] < 0.02]
    assert scarce.float().mean(0).tolist() == pytest.approx([0.25] * 4, abs=0.15), "the one that every row gets is anywhere"


def test_weights_by_the_rate_are_a_bound(make_objective, task):
    """The weight of each token is 1 on average, and of a row with one hidden token as much as MDLM's bound has: 1/L in all."""
    objective = make_objective("masked_diffusion", token_weight="inverse_rate")
    target = task.sample(1000, generator(0, "data")).target.repeat(200, 1)
    masked, rate = objective.draw_mask(target, generator(0, "objective"))
    weight = masked / rate
    assert weight.mean().item() == pytest.approx(1.0, abs=0.02)
    assert (weight[masked.sum(1) == 1].sum() / weight.sum()).item() == pytest.approx(1 / 4, abs=0.02)


@pytest.mark.parametrize("token_weight", ["flat", "inverse_rate"])
@pytest.mark.parametrize("focal_exponent", [0.0, 2.0])
def test_the_loss_is_that_of_the_masked_tokens(make_objective, trunk, batch, token_weight: str, focal_exponent: float):
    objective = make_objective("masked_diffusion", token_weight=token_weight, focal_exponent=focal_exponent)
    masked, rate = objective.draw_mask(batch.target, generator(0, "objective"))
    everywhere = torch.ones(1, 25, 25, dtype=torch.bool)
    sequence = torch.cat([batch.prompt, batch.target.masked_fill(masked, objective.spec.vocabulary.id("<mask>"))], 1)
    costs = negative_log_likelihood(trunk.logits(trunk(sequence, mask=everywhere).normed[:, 21:]), batch.target).detach()
    costs = [
        float(costs[b, i] * (1 - torch.exp(-costs[b, i])) ** focal_exponent) / (1 if token_weight == "flat" else float(rate[b]))
        for b in range(8)
        for i in range(4)
        if masked[b, i]
    ]
    expected = sum(costs) / (len(costs) if token_weight == "flat" else 8 * 4)
    assert total(objective, trunk, batch).item() == pytest.approx(expected, rel=1e-5)


def test_it_sees_what_comes_after(make_objective, trunk, batch):
    """Guards against a mask that stays causal (a known fault of bidirectional patches): the first token depends on the last."""
    objective = make_objective("masked_diffusion")
    hidden = batch.target.clone()
    hidden[:, 0] = objective.spec.vocabulary.id("<mask>")
    other = hidden.clone()
    other[:, -1] = (other[:, -1] + 1) % 10
    first = [objective.infill_logits(trunk, batch.prompt, tokens)[:, 0] for tokens in (hidden, other)]
    assert not torch.allclose(*first)


class Fills(Trunk):
    """A trunk that predicts the token 5 in every masked slot, with the certainty ``sure`` [L].

    ``level`` [L] is added to all logits of a slot, which changes no probability.
    """

    def __init__(self, task, sure: list[float], level: tuple[float, ...] = (0.0,) * 4) -> None:
        torch.nn.Module.__init__(self)
        self.task, self.sure, self.level, self.seen = task, torch.tensor(sure), torch.tensor(level), []

    def forward(self, tokens, mask=None, first=0) -> Hidden:
        self.seen.append(tokens[0, self.task.prompt_length :].tolist())
        logits = torch.zeros(*tokens.shape, self.task.vocabulary.size)
        logits[:, self.task.prompt_length :, 5] = self.sure
        logits[:, self.task.prompt_length :] += self.level[:, None]
        return Hidden(logits[:, first:], logits[:, first:])

    def logits(self, normed):
        return normed


@pytest.mark.parametrize("level", [(0.0, 0.0, 0.0, 0.0), (9.0, 0.0, 6.0, 3.0)])
def test_the_surest_token_is_filled_in_first(make_objective, task, batch, level):
    """Guards against certainty read off logits: with the second level, the largest logits are in the least certain slot."""
    objective, m = make_objective("masked_diffusion"), task.vocabulary.id("<mask>")
    trunk = Fills(task, [1.0, 4.0, 2.0, 3.0], level)
    answer = decoding.decode(trunk, objective, batch.prompt, 4, procedure="confidence")
    assert (answer == 5).all()
    assert trunk.seen == [[m, m, m, m], [m, 5, m, m], [m, 5, m, 5], [m, 5, 5, 5]]


def test_a_given_beginning_stays(make_objective, task, batch):
    """Guards against a forced beginning, as in the arm-following probe, that is filled in again."""
    objective, m = make_objective("masked_diffusion"), task.vocabulary.id("<mask>")
    trunk = Fills(task, [9.0, 8.0, 2.0, 3.0])
    answer = decoding.confidence(trunk, objective, batch.prompt, 4, prefix=torch.full((8, 2), 7))
    assert answer.tolist() == [[7, 7, 5, 5]] * 8
    assert trunk.seen == [[7, 7, m, m], [7, 7, m, 5]]


def test_left_to_right_is_left_to_right(make_objective, task, batch):
    objective, m = make_objective("masked_diffusion"), task.vocabulary.id("<mask>")
    trunk = Fills(task, [1.0, 4.0, 2.0, 3.0])
    decoding.decode(trunk, objective, batch.prompt, 4, procedure="left_to_right")
    assert trunk.seen == [[m, m, m, m], [5, m, m, m], [5, 5, m, m], [5, 5, 5, m]]


def test_all_at_once_is_one_pass(make_objective, task, batch):
    trunk = Fills(task, [1.0, 4.0, 2.0, 3.0])
    assert (decoding.decode(trunk, make_objective("masked_diffusion"), batch.prompt, 4, procedure="parallel") == 5).all()
    assert len(trunk.seen) == 1


@pytest.mark.parametrize("procedure", ["confidence", "left_to_right", "parallel"])
def test_answers_are_node_values(make_objective, make_scripted, task, batch, procedure):
    """Guards against a masked token that is filled in with the mask token."""
    mask = task.vocabulary.id("<mask>")
    stubborn = make_scripted(task, lambda row: [[mask, 3]] * len(row))
    assert (decoding.decode(stubborn, make_objective("masked_diffusion"), batch.prompt, 4, procedure=procedure) == 3).all()


# ------------------------------------------------------------------ random order


def shuffled(seed: int, target: torch.Tensor) -> torch.Tensor:
    return torch.rand(target.shape, generator=generator(seed, "objective")).argsort(1)


def test_each_token_is_predicted_for_its_own_slot(make_objective, trunk, batch):
    """Compare row by row and token by token with embeddings written out: own position, next slot."""
    objective, costs = make_objective("random_order"), []
    for b, slots in enumerate(shuffled(0, batch.target).tolist()):
        for n in range(4):
            tokens = [*batch.prompt[b].tolist(), *(int(batch.target[b, s]) for s in slots[:n])]
            places = [*range(21), *(21 + s for s in slots[: n + 1])]
            embeddings = trunk.embed(torch.tensor([tokens])) + objective.next_slot(torch.tensor([places[1:]]))
            logits = trunk.logits(trunk(embeddings, positions=torch.tensor([places[:-1]])).normed[:, -1:])
            costs.append(negative_log_likelihood(logits, batch.target[b, slots[n]].view(1, 1)).mean())
    assert_close(total(objective, trunk, batch), torch.stack(costs).mean())


def test_rows_have_orders_of_their_own(make_objective, trunk, batch):
    """Guards against one order for the whole batch, over 40 draws of 8 rows."""
    objective, seen = make_objective("random_order"), []
    trunk.register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs["positions"][:, 21:]), with_kwargs=True)
    for seed in range(40):
        total(objective, trunk, batch, seed)
    assert len({tuple(row) for slots in seen for row in slots.tolist()}) == 24, "all beginnings of the 24 orders of four slots"
    assert all(len(slots.unique(dim=0)) > 1 for slots in seen)


def test_slots_can_be_filled_in_any_order(make_objective, trunk, batch):
    """Left to right, the slots' logits are those of the forced reading."""
    objective = make_objective("random_order")
    forced = objective.forced_logits(trunk, batch)
    for n in range(4):
        slots = torch.arange(n + 1).expand(8, n + 1)
        assert_close(objective.slot_logits(trunk, batch.prompt, batch.target[:, :n], slots), forced[:, n])


def test_goal_first_writes_the_goal_first_and_returns_canonical_order(make_objective, make_oracle, batch):
    """A trunk that knows the path from the goal on: its first token is the last of the answer."""
    objective = make_objective("random_order")
    oracle = make_oracle(objective, Batch(batch.prompt, batch.target.flip(1)))
    answer = decoding.decode(oracle, objective, batch.prompt, 4, procedure="goal_first")
    assert torch.equal(answer, batch.target)
    assert not torch.equal(decoding.decode(oracle, objective, batch.prompt, 4), batch.target)
