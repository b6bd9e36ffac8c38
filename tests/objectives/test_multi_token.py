"""Heads, modules and windows that predict further tokens, compared with a loop that follows the paper. What each may see."""

import pytest
import torch
from torch.testing import assert_close

from pitfalls.evaluation import decoding
from pitfalls.metrics import negative_log_likelihood
from pitfalls.models.trunk import Hidden
from pitfalls.objectives.base import ahead
from pitfalls.schemas import ConfigError
from pitfalls.seeding import generator
from pitfalls.tasks.batch import Batch

SEVERAL = ["multi_token", "sequential_multi_token", "joint_multi_token"]


@pytest.fixture
def hidden(trunk, batch) -> Hidden:
    """States of the teacher-forced pass."""
    return trunk(torch.cat([batch.prompt, batch.target[:, :-1]], 1), before_last_block=True)


def parts(objective, trunk, hidden: Hidden, batch: Batch) -> dict[str, torch.Tensor]:
    """Return the auxiliary losses, from all states or from those that predict the target, as the objective needs them."""
    if not objective.reads_prompt_states:
        first = batch.prompt.shape[1] - 1
        hidden = Hidden(hidden.normed[:, first:], hidden.pre_norm[:, first:], hidden.before_last_block)
    return objective.auxiliary(trunk, hidden, batch, step=0, generator=generator(0, "objective"))


def cost(trunk, state: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
    """Return the mean over rows of -log p of one token [B] read from one state [B,D]."""
    return negative_log_likelihood(trunk.logits(state)[:, None], token[:, None]).mean()


def with_prompt(batch: Batch) -> Batch:
    """Return the batch with other edges and the same = at the end."""
    return Batch(torch.cat([batch.prompt[:, :-1].roll(1, 0), batch.prompt[:, -1:]], 1), batch.target)


def with_token(batch: Batch, place: int) -> Batch:
    target = batch.target.clone()
    target[:, place] = (target[:, place] + 1) % 10
    return Batch(batch.prompt, target)


def test_ahead_counts_from_the_next_token():
    assert ahead(3, torch.device("cpu")).tolist() == [[0, 1, 2], [-1, 0, 1], [-2, -1, 0]]


@pytest.mark.parametrize(("heads", "read"), [("beside_last", "before_last_block"), ("on_top", "pre_norm")])
def test_parallel_heads_follow_the_paper(make_objective, trunk, hidden, batch, heads: str, read: str):
    """Head k at answer state t predicts target[t+k]. The mean is over the states that have such a token."""
    objective = make_objective("multi_token", weight=0.7, heads=heads)
    first, length = batch.prompt.shape[1] - 1, batch.target.shape[1]
    for k, head in enumerate(objective.heads, 1):
        states = trunk.norm(head(getattr(hidden, read)))
        costs = [cost(trunk, states[:, first + t], batch.target[:, t + k]) for t in range(length - k)]
        assert_close(parts(objective, trunk, hidden, batch)[f"ahead_{k}"], 0.7 * torch.stack(costs).mean())


def test_next_token_and_heads_are_equally_deep(make_objective, trunk, hidden, batch):
    """Guards against next token without a block of its own: with the weights of the trunk's last block, a head gives the same."""
    objective = make_objective("multi_token")
    objective.heads[0].block.load_state_dict(trunk.lm.transformer.h[-1].state_dict())
    said = objective.draft_logits(trunk, hidden)
    assert_close(said[:, 1], said[:, 0])
    assert not torch.allclose(said[:, 2], said[:, 0])


def test_a_place_for_the_heads_that_does_not_exist_is_refused(make_objective):
    with pytest.raises(ValueError, match=r"objective.heads=top: choose one of beside_last, on_top"):
        make_objective("multi_token", heads="top")


def test_sequential_modules_follow_the_paper(make_objective, trunk, hidden, batch):
    """Module k joins its state t with the embedding of x_{t+k}, and predicts x_{t+1+k}."""
    objective = make_objective("sequential_multi_token", weight=0.3)
    x, states = torch.cat([batch.prompt, batch.target], 1), list(hidden.pre_norm.unbind(1))
    embeddings = trunk.embed(x)
    first, length = batch.prompt.shape[1] - 1, batch.target.shape[1]
    for k, module in enumerate(objective.chain, 1):
        joined = [
            module.join(torch.cat([module.state_norm(states[t]), module.token_norm(embeddings[:, t + k])], -1))
            for t in range(x.shape[1] - 1 - k)
        ]
        states = list(module.block(torch.stack(joined, 1)).unbind(1))
        costs = [cost(trunk, trunk.norm(states[t]), x[:, t + 1 + k]) for t in range(first, first + length - k)]
        expected = 0.3 / 3 * torch.stack(costs).mean()
        assert_close(parts(objective, trunk, hidden, batch)[f"ahead_{k}"], expected)


def test_the_joint_window_follows_the_paper(make_objective, trunk, hidden, batch):
    """Each window is computed separately, without a mask. Its last place attends to the same places as under the causal mask."""
    objective = make_objective("joint_multi_token", weight=0.7, gamma=0.25)
    x, first, length = torch.cat([batch.prompt, batch.target], 1), batch.prompt.shape[1] - 1, batch.target.shape[1]
    costs = []
    for t in range(first, first + length - 1):
        for j in range(1, 4):
            if t + 1 + j >= x.shape[1]:
                continue
            state = hidden.normed[:, t]
            window = torch.stack([0.25 * state + trunk.embed(x[:, t + i : t + i + 1])[:, 0] for i in range(j + 1)], 1)
            fetched = state + objective.fetch(window, window, window, need_weights=False)[0][:, -1]
            costs.append(cost(trunk, fetched, x[:, t + 1 + j]))
    assert len(costs) == 3 + 2 + 1
    assert_close(parts(objective, trunk, hidden, batch)["joint"], 0.7 * torch.stack(costs).mean())


def test_parallel_heads_see_no_target_token_after_their_state(make_objective, trunk, batch):
    """The head that reaches the goal from the = gives the same, whatever tokens are between them."""
    objective = make_objective("multi_token")

    def last(batch: Batch) -> torch.Tensor:
        hidden = trunk(torch.cat([batch.prompt, batch.target[:, :-1]], 1), before_last_block=True)
        return parts(objective, trunk, hidden, batch)["ahead_3"]

    assert all(torch.equal(last(with_token(batch, i)), last(batch)) for i in (0, 1, 2))
    assert not torch.equal(last(with_token(batch, 3)), last(batch))


@pytest.mark.parametrize("name", ["sequential_multi_token", "joint_multi_token"])
def test_modules_and_windows_see_gold_tokens(make_objective, trunk, hidden, batch, name):
    """With the same states, other gold tokens between state and label change the loss, because they are inputs."""
    objective = make_objective(name)
    before = sum(parts(objective, trunk, hidden, batch).values())
    assert not torch.equal(sum(parts(objective, trunk, hidden, with_token(batch, 0)).values()), before)


@pytest.mark.parametrize(
    ("name", "changes", "sees"),
    [
        ("sequential_multi_token", {}, True),
        ("sequential_multi_token", {"sees": "separator"}, False),
        ("sequential_multi_token", {"sees": "answer"}, False),
        ("joint_multi_token", {}, False),
    ],
)
def test_who_sees_the_prompt(make_objective, trunk, hidden, batch, name, changes, sees: bool):
    """With the same states, another prompt changes the loss of a module only if the module may see the prompt."""
    objective = make_objective(name, **changes)
    before = sum(parts(objective, trunk, hidden, batch).values())
    assert torch.equal(sum(parts(objective, trunk, hidden, with_prompt(batch)).values()), before) is not sees
    if name == "sequential_multi_token":  # nor do prompt states matter
        pre_norm = hidden.pre_norm.detach().clone()
        pre_norm[:, : batch.prompt.shape[1] - 1].normal_(generator=generator(0, "probe"))
        other = sum(parts(objective, trunk, Hidden(hidden.normed, pre_norm), batch).values())
        assert torch.equal(other, before) is not sees


@pytest.mark.parametrize(("where", "sees"), [("prompt", True), ("separator", True), ("answer", False)])
def test_who_sees_the_separator(make_objective, trunk, hidden, batch, where, sees: bool):
    """Another state of the = changes what the modules make of the answer's states, or only what it makes of itself."""
    objective = make_objective("sequential_multi_token", sees=where)
    first = batch.prompt.shape[1] - 1
    pre_norm = hidden.pre_norm.detach().clone()
    pre_norm[:, first].normal_(generator=generator(0, "probe"))
    seen: dict[bool, list[torch.Tensor]] = {}
    for changed, states in ((False, hidden.pre_norm), (True, pre_norm)):
        seen[changed] = []
        handle = objective.chain[0].register_forward_hook(lambda *args, made=seen[changed]: made.append(args[2]))
        parts(objective, trunk, Hidden(hidden.normed, states), batch)
        handle.remove()
    n = batch.target.shape[1] - 1  # states of the first depth from the = on
    before, after = (torch.cat(seen[changed], 1)[:, -n:] for changed in (False, True))
    assert not torch.equal(before[:, 0], after[:, 0])
    assert torch.equal(before[:, 1:], after[:, 1:]) is not sees


def test_a_view_that_does_not_exist_is_refused_with_the_choices(make_objective):
    with pytest.raises(ValueError, match=r"objective.sees=promt: choose one of prompt, separator, answer"):
        make_objective("sequential_multi_token", sees="promt")


def test_embeddings_can_be_kept_out_of_the_fetch(make_objective, make_trunk, batch):
    """With the states held fixed, the rest of the embeddings' gradient comes through their use as unembedding."""
    gradients = []
    for detach in (False, True):
        trunk = make_trunk()
        with torch.no_grad():
            hidden = trunk(torch.cat([batch.prompt, batch.target[:, :-1]], 1))
        objective = make_objective("joint_multi_token", detach_embeddings=detach)
        parts(objective, trunk, hidden, batch)["joint"].backward()
        gradients.append(trunk.lm.get_input_embeddings().weight.grad)
    assert not torch.equal(*gradients)


@pytest.mark.parametrize("name", SEVERAL)
def test_horizons(make_objective, name):
    assert make_objective(name).horizon == 4
    assert make_objective(name, horizon=2).horizon == 2
    with pytest.raises(ConfigError, match=r"objective.horizon=1: it must be >= 2"):
        make_objective(name, horizon=1)


def test_blocks_decode_as_the_heads_say(make_objective, make_trunk, batch):
    """With a horizon of 2, two passes give four tokens: the trunk's own and the head's, in turn."""
    trunk = make_trunk(weight_init_std=1.0).eval()
    objective = make_objective("multi_token", horizon=2)
    answer = decoding.decode(trunk, objective, batch.prompt, 4, procedure="blockwise")
    hidden = trunk(batch.prompt, before_last_block=True)
    two = [trunk.logits(hidden.normed[:, -1]), trunk.logits(trunk.norm(objective.heads[0](hidden.before_last_block))[:, -1])]
    assert torch.equal(answer[:, :2], torch.stack([logits.argmax(-1) for logits in two], 1))
    passes = []
    trunk.register_forward_hook(lambda module, args, output: passes.append(args[0].shape[1]))
    decoding.decode(trunk, objective, batch.prompt, 4, procedure="blockwise")
    assert passes == [batch.prompt.shape[1], batch.prompt.shape[1] + 2]
    assert torch.equal(answer[:, 2], trunk.logits(trunk(torch.cat([batch.prompt, answer[:, :2]], 1)).normed[:, -1]).argmax(-1))
