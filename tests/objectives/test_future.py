"""Closed forms of the auxiliary losses about future tokens: their order, their set, their ranking, and future states."""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from pitfalls.models.trunk import Hidden, Trunk
from pitfalls.seeding import generator
from pitfalls.tasks.batch import Batch


def parts(objective, trunk, hidden: Hidden, batch: Batch) -> dict[str, torch.Tensor]:
    return objective.auxiliary(trunk, hidden, batch, step=0, generator=generator(0, "objective"))


@pytest.fixture
def hidden(trunk, batch) -> Hidden:
    """States of the teacher-forced pass that predict the target."""
    return trunk(torch.cat([batch.prompt, batch.target[:, :-1]], 1), first=20)


@pytest.fixture
def whole(trunk, batch) -> Hidden:
    """All its states, the prompt's included."""
    return trunk(torch.cat([batch.prompt, batch.target[:, :-1]], 1))


# ------------------------------------------------------------------ token order


def test_the_order_weighs_tokens_by_their_distance(make_objective):
    """The token k places after the next one has a weight of exp(-k). Past tokens and the rest of the vocabulary have none."""
    order = make_objective("token_order").order(torch.tensor([[7, 3, 5, 9]]))
    weights = torch.tensor([math.exp(-k) for k in range(4)])
    assert_close(order[0, 0, [7, 3, 5, 9]], weights / weights.sum())
    assert_close(order[0, 2, [5, 9]], weights[:2] / weights[:2].sum())
    assert order[0, 2, [7, 3, 0, 15]].tolist() == [0, 0, 0, 0]
    assert_close(order.sum(-1), torch.ones(1, 4))


def test_of_a_repeated_token_the_nearest_counts(make_objective):
    order = make_objective("token_order").order(torch.tensor([[7, 3, 7, 9]]))
    weights = torch.tensor([1.0, math.exp(-1), math.exp(-3)])
    assert_close(order[0, 0, [7, 3, 9]], weights / weights.sum())


def test_a_window_ends_and_a_temperature_flattens(make_objective):
    short = make_objective("token_order", horizon=2).order(torch.tensor([[7, 3, 5, 9]]))
    assert short[0, 0, [5, 9]].tolist() == [0, 0]
    flat = make_objective("token_order", temperature=1e6).order(torch.tensor([[7, 3, 5, 9]]))
    assert_close(flat[0, 1, [3, 5, 9]], torch.full((3,), 1 / 3))


def test_the_order_is_that_of_each_state(make_objective, trunk, hidden, batch):
    """Guards against states that are compared with the order of another state, by a loop over rows, states and future tokens."""
    objective, total = make_objective("token_order", weight=0.5), 0.0
    for b in range(8):
        for i in range(4):
            said = objective.head(hidden.normed[b, i]).log_softmax(-1)
            weights = torch.tensor([math.exp(-(j - i)) for j in range(i, 4)])
            total -= float((weights / weights.sum() * said[batch.target[b, i:]].detach()).sum())
    assert parts(objective, trunk, hidden, batch)["order"].item() == pytest.approx(0.5 * total / 32, rel=1e-5)


def test_an_order_that_says_nothing_costs_ln_v(make_objective, trunk, hidden, batch):
    objective = make_objective("token_order", weight=0.5)
    torch.nn.init.zeros_(objective.head.weight)
    vocabulary = objective.spec.vocabulary.size
    assert parts(objective, trunk, hidden, batch)["order"].item() == pytest.approx(0.5 * math.log(vocabulary), rel=1e-5)


# ------------------------------------------------------------------ bag of words


def test_the_bag_holds_what_comes_after_the_next_token(make_objective):
    bag = make_objective("future_summary").bag(torch.tensor([[7, 3, 5, 9]]))
    assert [row.nonzero()[:, 0].tolist() for row in bag[0]] == [[3, 5, 9], [5, 9], [9], []]
    short = make_objective("future_summary", horizon=2).bag(torch.tensor([[7, 3, 5, 9]]))
    assert [row.nonzero()[:, 0].tolist() for row in short[0]] == [[3], [5], [9], []]


def test_the_summary_is_that_of_each_state(make_objective, trunk, hidden, batch):
    """A loop over rows, states and the vocabulary."""
    objective, total = make_objective("future_summary", weight=0.5), 0.0
    for b in range(8):
        for i in range(4):
            p = objective.head(hidden.normed[b, i]).detach().sigmoid()
            total -= sum(math.log(p[v] if v in batch.target[b, i + 1 :] else 1 - p[v]) for v in range(len(p)))
    assert parts(objective, trunk, hidden, batch)["summary"].item() == pytest.approx(0.5 * total / 32 / len(p), rel=1e-5)


def test_a_summary_that_says_nothing_costs_ln_2(make_objective, trunk, hidden, batch):
    objective = make_objective("future_summary", weight=0.5)
    torch.nn.init.zeros_(objective.head.weight)
    torch.nn.init.zeros_(objective.head.bias)
    assert parts(objective, trunk, hidden, batch)["summary"].item() == pytest.approx(0.5 * math.log(2), rel=1e-5)


# ------------------------------------------------------------------ ranking


class Said(Trunk):
    """A trunk whose logits are given."""

    def __init__(self, logits: torch.Tensor) -> None:
        torch.nn.Module.__init__(self)
        self.given = logits

    def logits(self, normed: torch.Tensor) -> torch.Tensor:
        return self.given


def ranking(make_objective, scores: torch.Tensor, **changes: object) -> dict[str, float]:
    """Return the loss of one row with target 1 2 3 4 on a prompt with other nodes 5 and 6, for logits [L,V]."""
    objective = make_objective("future_ranking", **changes)
    prompt = torch.tensor([[1, 2, 10, 2, 3, 10, 3, 4, 10, 1, 5, 10, 5, 6, 10, 6, 6, 11, 1, 4, 12]])
    batch = Batch(prompt, torch.tensor([[1, 2, 3, 4]]))
    states = torch.zeros(1, 4, objective.spec.width)
    return {name: part.item() for name, part in parts(objective, Said(scores[None]), Hidden(states, states), batch).items()}


def test_a_ranking_costs_nothing_when_it_is_right_by_the_margin(make_objective):
    scores = torch.zeros(4, 20)
    scores[:, [1, 2, 3, 4]] = torch.tensor([8.0, 6.0, 4.0, 2.0])
    assert ranking(make_objective, scores) == {"order": 0.0, "arm": 0.0}
    assert ranking(make_objective, -scores)["order"] > 3


def test_a_ranking_that_says_nothing_costs_the_margin(make_objective):
    assert ranking(make_objective, torch.zeros(4, 20), margin=1.5, weight=2.0) == {"order": 3.0, "arm": 3.0}


def test_only_tokens_to_come_are_ranked(make_objective):
    """Guards against a ranking of past tokens, the start or the goal: state 2 ranks 3 above 4, and both above 5 and 6."""
    scores = torch.zeros(4, 20)
    scores[:, [1, 2, 3, 4]] = torch.tensor([8.0, 6.0, 4.0, 2.0])
    scores[2, [1, 2]] = -100.0  # the past of state 2
    scores[2, 0] = scores[2, 7] = 100.0  # not in the prompt
    assert ranking(make_objective, scores) == {"order": 0.0, "arm": 0.0}
    scores[2, 6] = 3.0
    # of (4+3+2+1) * 2 pairs, three are not right by the margin: 4 against 6 at 2-3, 3 against 6 at 4-3 is exactly right
    assert ranking(make_objective, scores)["arm"] == pytest.approx(2.0 / 20)


def test_other_arms_can_be_left_out(make_objective):
    assert set(ranking(make_objective, torch.zeros(4, 20), above_other_arms=False)) == {"order"}


# ------------------------------------------------------------------ next latent


def still(objective):
    """Set psi = 0: the state of the next position is predicted to be that of this one."""
    torch.nn.init.zeros_(objective.psi[-1].weight)
    torch.nn.init.zeros_(objective.psi[-1].bias)
    return objective


@pytest.mark.parametrize("state", ["normed", "pre_norm"])
def test_latents_are_compared_i_steps_on(make_objective, trunk, whole, batch, state: str):
    objective = still(make_objective("next_latent", weight=0.7, kl_weight=0.3, state=state))
    assert objective.horizon == 3, "l-2 steps"
    h = getattr(whole, state)
    steps = [F.smooth_l1_loss(h[:, :-i], h[:, i:]) for i in (1, 2)]
    found = parts(objective, trunk, whole, batch)
    assert_close(found["latent"], 0.7 * torch.stack(steps).mean())
    first = batch.prompt.shape[1] - 1
    p = trunk.logits(whole.normed).log_softmax(-1)
    kls = [(p[:, first:].exp() * (p[:, first:] - p[:, first - i : p.shape[1] - i])).sum(-1).mean() for i in (1, 2)]
    assert_close(found["divergence"], 0.3 * torch.stack(kls).mean())


def test_the_roll_out_follows_the_paper(make_objective, trunk, whole, batch):
    objective = make_objective("next_latent")
    x, state, steps = torch.cat([batch.prompt, batch.target[:, :-1]], 1), whole.normed, []
    for i in (1, 2):
        state = state[:, : x.shape[1] - i]
        state = state + objective.psi(torch.cat([state, trunk.embed(x[:, i:])], -1))
        steps.append(F.smooth_l1_loss(state, whole.normed[:, i:]))
    assert_close(parts(objective, trunk, whole, batch)["latent"], torch.stack(steps).mean())


def test_what_is_predicted_gets_no_gradient(make_objective, trunk, batch):
    """Guards against missing stop-gradients, on which the method depends. The last state is predicted and predicts nothing."""
    objective = make_objective("next_latent", zero_init=True)
    x = torch.cat([batch.prompt, batch.target[:, :-1]], 1)
    states = [s.detach().clone().requires_grad_() for s in trunk(x)[:2]]
    found = parts(objective, trunk, Hidden(*states), batch)
    unembedding = trunk.lm.get_output_embeddings().weight
    found["divergence"].backward(retain_graph=True)
    touched = unembedding.grad.abs().sum(1) > 0
    assert not touched[[13, 14, 15, 16, 17, 18, 19]].any(), "only embeddings that the roll-out reads, no unembedding"
    found["latent"].backward()
    assert states[0].grad[:, :-1].abs().amax((0, 2)).gt(0).all()
    assert (states[0].grad[:, -1] == 0).all()
    assert (objective.psi(torch.randn(3, 2 * trunk.width)) == 0).all()


def test_embeddings_can_be_kept_out_of_the_roll_out(make_objective, make_trunk, batch):
    gradients = []
    for detach in (False, True):
        trunk = make_trunk()
        with torch.no_grad():
            hidden = trunk(torch.cat([batch.prompt, batch.target[:, :-1]], 1))
        found = parts(make_objective("next_latent", detach_embeddings=detach), trunk, hidden, batch)
        sum(found.values()).backward()
        gradients.append(trunk.lm.get_input_embeddings().weight.grad)
    assert gradients[0] is not None
    assert gradients[1] is None
