"""Drafts change the number of passes of an answer, and nothing else."""

import itertools

import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from pitfalls.evaluation import decoding, speculative
from pitfalls.models.factory import build_trunk
from pitfalls.objectives.multi_token import MultiToken
from pitfalls.schemas import ConfigError
from pitfalls.seeding import generator
from tests.conftest import spec_of

VERIFIED = [name for name, procedure in decoding.PROCEDURES.items() if procedure.same_as_autoregressive]
LENGTH = 4


@pytest.fixture
def model(task, make_trunk, objective_preset):
    """An untrained model with large weights, whose answers differ from row to row."""
    trunk = make_trunk(weight_init_std=1.0).eval()
    return trunk, MultiToken(spec_of(task, trunk), objective_preset("multi_token"), generator(0, "objective")).eval()


def passes_of(trunk, run):
    """Return what ``run`` returns, and (rows, tokens) of every pass of the trunk."""
    seen = []
    handle = trunk.lm.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    answer = run()
    handle.remove()
    return answer, seen


def drafts_of(objective, answer, n_right):
    """Return heads that know the answer to the one prompt. The first n_right tokens that they draft are right."""

    def draft_logits(trunk, hidden):
        known = hidden.normed.shape[1] - objective.spec.prompt_length
        logits = torch.zeros(len(hidden.normed), LENGTH, objective.spec.vocabulary.size)
        for k in range(1, LENGTH - known):
            for best in (1, 2):  # and the second best, for trees: the two wrong ones are none of the answer's
                logits[:, k, (answer[known + k] + (best if k > n_right else best - 1)) % logits.shape[-1]] = 1.0 / best
        return logits

    return draft_logits


@pytest.mark.parametrize("procedure", VERIFIED)
def test_greedy_answers_are_those_of_one_token_at_a_time(model, task, procedure):
    """Guards against errors in masks, positions and bookkeeping, with heads that are mostly wrong."""
    trunk, objective = model
    prompt = task.sample(256, generator(0, "data")).prompt
    slow = decoding.decode(trunk, objective, prompt, LENGTH, procedure="autoregressive")
    fast, passes = passes_of(trunk, lambda: decoding.decode(trunk, objective, prompt, LENGTH, procedure=procedure))
    assert torch.equal(fast, slow)
    assert len(slow.unique(dim=0)) > 50, "rows that all answer the same show nothing"
    n_tokens_per_pass = 256 * LENGTH / sum(rows for rows, _ in passes)
    assert n_tokens_per_pass > 1, "some drafts must have been right"


def test_a_node_of_a_tree_is_read_as_the_end_of_its_own_branch(model, task):
    """Guards against a node that does not see an ancestor, sees another branch, or stands at another position.

    Greedy answers rarely change with these, so states are compared: those of every node, and of a pass over its branch alone.
    """
    trunk, _ = model
    known = task.sample(4, generator(0, "data")).prompt
    draft = torch.randint(task.n_values, (4, 3, 2), generator=generator(1, "data"))
    nodes = [node for depth in range(4) for node in itertools.product(range(2), repeat=depth)]
    branches = {node: torch.stack([draft[:, depth, b] for depth, b in enumerate(node)], 1) for node in nodes[1:]}
    inputs = torch.cat([known, *(tokens[:, -1:] for tokens in branches.values())], 1)
    with torch.no_grad():
        states = trunk(inputs, **speculative._tree_inputs(nodes, known.shape[1], known.device)).normed
        assert_close(states[:, : known.shape[1]], trunk(known).normed, atol=1e-4, rtol=1e-4)
        for i, tokens in enumerate(branches.values()):
            alone = trunk(torch.cat([known, tokens], 1)).normed[:, -1]
            assert_close(states[:, known.shape[1] + i], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("procedure", VERIFIED)
@pytest.mark.parametrize(("n_right", "n_passes"), [(0, 4), (1, 3), (2, 2), (3, 2)])
def test_right_drafts_save_passes(model, task, monkeypatch, procedure, n_right, n_passes):
    """The first pass has no draft to verify. Every later pass gives the right tokens of its draft, and one more."""
    trunk, objective = model
    prompt = task.sample(1, generator(0, "data")).prompt.expand(3, -1)
    slow = decoding.decode(trunk, objective, prompt, LENGTH, procedure="autoregressive")
    monkeypatch.setattr(objective, "draft_logits", drafts_of(objective, slow[0], n_right))
    fast, passes = passes_of(trunk, lambda: decoding.decode(trunk, objective, prompt, LENGTH, procedure=procedure))
    assert torch.equal(fast, slow)
    assert len(passes) == n_passes


@pytest.mark.parametrize("procedure", VERIFIED)
def test_sampled_answers_follow_the_model(model, task, monkeypatch, procedure):
    """A chi-square test: the first two tokens of 4,000 answers to one prompt against the model's own probabilities."""
    trunk, objective = model
    with torch.no_grad():
        trunk.lm.transformer.ln_f.weight.mul_(0.1)  # less certain: many answers are likely
    prompt = task.sample(1, generator(0, "data")).prompt
    greedy = decoding.decode(trunk, objective, prompt, LENGTH)[0]
    monkeypatch.setattr(objective, "draft_logits", drafts_of(objective, greedy, 3))
    n, n_tokens = 4000, objective.spec.vocabulary.size
    with torch.no_grad():
        p = trunk.logits(trunk(prompt).normed[:, -1]).softmax(-1)[0]
        after = torch.cat([prompt.expand(n_tokens, -1), torch.arange(n_tokens)[:, None]], 1)
        joint = (p[:, None] * trunk.logits(trunk(after).normed[:, -1]).softmax(-1)).flatten()
    answers = decoding.decode(
        trunk, objective, prompt.expand(n, -1), LENGTH, procedure=procedure, generator=generator(0, "decode")
    )
    counts = torch.bincount(answers[:, 0] * n_tokens + answers[:, 1], minlength=n_tokens**2).double()
    likely = joint * n >= 5
    observed = torch.cat([counts[likely], counts[~likely].sum()[None]])
    expected = torch.cat([joint[likely], joint[~likely].sum()[None]]).double() * n
    assert int(likely.sum()) > 20
    assert stats.chisquare(observed, expected * n / expected.sum()).pvalue > 1e-3


def test_a_recurrent_trunk_verifies_a_chain_and_refuses_a_tree(task, objective_preset, model_preset):
    """Guards against the claim that a chain of drafts needs neither mask nor positions."""
    trunk = build_trunk(
        model_preset("mamba_tiny"),
        n_tokens=task.vocabulary.size,
        n_positions=task.n_positions,
        generator=generator(0, "init"),
        device=torch.device("cpu"),
    ).eval()
    objective = MultiToken(spec_of(task, trunk), objective_preset("multi_token"), generator(0, "objective"))
    prompt = task.sample(16, generator(0, "data")).prompt
    slow = decoding.decode(trunk, objective, prompt, LENGTH, procedure="autoregressive")
    assert torch.equal(decoding.decode(trunk, objective, prompt, LENGTH, procedure="self_speculative"), slow)
    with pytest.raises(ConfigError, match="tree: the model is recurrent and takes no mask; choose another of autoregressive"):
        decoding.decode(trunk, objective, prompt, LENGTH, procedure="tree")
