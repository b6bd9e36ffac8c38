"""Belief state: every pair of a prefix and a suffix, and what the two ends see."""

import torch
from torch.testing import assert_close

from pitfalls.metrics import negative_log_likelihood
from pitfalls.seeding import generator


def test_the_loss_is_over_all_pairs(make_objective, trunk, batch):
    """Compare with a loop over prefixes and suffixes, each read separately from the tokens that it may see."""
    objective = make_objective("belief_state")
    end = torch.full((8, 1), objective.spec.vocabulary.id("<eos>"))
    after, before = [], []
    for i in range(4):
        for j in range(i + 1, 5):
            prefix = trunk(torch.cat([batch.prompt, batch.target[:, :i]], 1)).normed[:, -1:]
            suffix = torch.cat([batch.target[:, j:], end], 1).flip(1)
            suffix = objective.backward_trunk(trunk.embed(suffix)).normed[:, -1:]
            states = objective.head(prefix, suffix)
            for state, token, costs in zip(states, (batch.target[:, i], batch.target[:, j - 1]), (after, before), strict=True):
                costs.append(negative_log_likelihood(trunk.logits(state), token[:, None]).mean())
    assert len(after) == 10
    loss = objective.training_loss(trunk, batch, step=0, generator=generator(0, "objective"))
    assert_close(loss.parts["next"], 0.5 * torch.stack(after).mean())
    assert_close(loss.parts["previous"], 0.5 * torch.stack(before).mean())


def test_the_suffix_never_sees_the_prompt_nor_the_past(make_objective, trunk, batch):
    objective, seen = make_objective("belief_state"), []
    objective.backward_trunk.register_forward_hook(lambda module, args, output: seen.append(args[0].shape[1]))
    objective.training_loss(trunk, batch, step=0, generator=generator(0, "objective"))
    assert seen == [5], "the target and its end"


def test_answers_are_read_with_an_empty_suffix(make_objective, trunk, batch):
    """Guards against an inference that was never trained: the pairs with the lone end are among those of the loss."""
    objective = make_objective("belief_state")
    forced = objective.forced_logits(trunk, batch)
    nothing = objective.backward_trunk(trunk.embed(torch.full((8, 1), objective.spec.vocabulary.id("<eos>")))).normed
    prefix = trunk(torch.cat([batch.prompt, batch.target[:, :1]], 1)).normed[:, -1:]
    assert_close(forced[:, 1], trunk.logits(objective.head(prefix, nothing)[0])[:, 0])


def test_the_backward_trunk_has_no_embeddings_of_its_own(make_objective):
    names = [name for name, _ in make_objective("belief_state").named_parameters()]
    assert names
    assert not [name for name in names if "wte" in name or "lm_head" in name]


def test_both_ends_share_the_token_embeddings(make_objective, trunk, batch):
    """Guards against a second table that nothing else trains: tokens of the suffix reach the trunk's."""
    objective, gradients = make_objective("belief_state"), []

    def keep(embeddings: torch.Tensor) -> None:
        embeddings.register_hook(gradients.append)

    objective.backward_trunk.register_forward_pre_hook(lambda module, args: keep(args[0]))
    objective.training_loss(trunk, batch, step=0, generator=generator(0, "objective")).total.backward()
    reached = gradients[0].abs().sum(-1).gt(0)
    assert reached[:, :-1].all(), "every suffix but the whole target is one end of a pair"
    tokens = torch.full((1, 1), objective.spec.vocabulary.id("<eos>"))
    assert torch.equal(trunk.embed(tokens)[0, 0], trunk.lm.get_input_embeddings().weight[tokens[0, 0]])
