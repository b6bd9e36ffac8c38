"""Decoding procedures: the same with and without a cache, and answers in canonical order."""

import pytest
import torch
from torch.testing import assert_close

from pitfalls.evaluation import decoding
from pitfalls.models.trunk import Trunk
from pitfalls.objectives import NAMES, objective_class
from pitfalls.schemas import ConfigError
from pitfalls.seeding import generator

AUTOREGRESSIVE = [name for name in NAMES if "autoregressive" in objective_class(name).decoders]


@pytest.mark.parametrize("name", AUTOREGRESSIVE)
@pytest.mark.parametrize("attention", ["matmul", "sdpa", "eager"])
def test_cached_equals_uncached_token_for_token(make_objective, make_trunk, task, name: str, attention: str):
    """Guards against a cache with positions or masks of its own (defect 26 of the official code: its cache cannot run)."""
    trunk = make_trunk(weight_init_std=1.0, scaled_residual_init=False).eval()
    trunk.lm.set_attn_implementation(attention)
    objective = make_objective(name)
    prompt = task.sample(32, generator(2, "data")).prompt
    fast = decoding.autoregressive(trunk, objective, prompt, task.target_length)
    slow = decoding.autoregressive_uncached(trunk, objective, prompt, task.target_length)
    assert torch.equal(fast, slow)
    assert len(fast[:, 1:].unique()) > 3, "an untrained trunk that always says the same would prove nothing"


@pytest.mark.parametrize("name", AUTOREGRESSIVE)
def test_cached_logits_equal_uncached_ones(make_objective, trunk: Trunk, batch, name: str):
    """Compare the logits of every step, which is stricter than equal tokens."""
    objective, cache = make_objective(name), trunk.new_cache()
    sequence = torch.cat([batch.prompt, batch.target], 1)
    for n in range(batch.prompt.shape[1], sequence.shape[1]):
        new = sequence[:, :n] if n == batch.prompt.shape[1] else sequence[:, n - 1 : n]
        fast = objective.step_logits(trunk, new, cache)
        assert_close(fast, objective.step_logits(trunk, sequence[:, :n], None), atol=1e-5, rtol=1e-5)


def test_the_prompt_is_read_once(make_objective, trunk: Trunk, batch):
    """Guards against a decoder that reads the prompt at every step."""
    lengths = []
    trunk.register_forward_pre_hook(lambda module, args: lengths.append(args[0].shape[1]))
    decoding.decode(trunk, make_objective("next_token"), batch.prompt, 4)
    assert lengths == [batch.prompt.shape[1], 1, 1, 1]


def test_the_cache_is_as_long_as_prompt_and_answer(make_objective, trunk: Trunk, batch, monkeypatch):
    """Guards against a cache that copies what it holds at every token. The last token of an answer is never read."""
    asked, new_cache = [], trunk.new_cache
    monkeypatch.setattr(trunk, "new_cache", lambda *args: asked.append(args) or new_cache(*args))
    decoding.decode(trunk, make_objective("next_token"), batch.prompt, 4)
    assert asked == [(batch.prompt.shape[1] + 3,)]


def test_reversed_answers_are_turned_round(make_objective, make_oracle, batch):
    objective = make_objective("reversed")
    oracle = make_oracle(objective, batch)
    raw = decoding.autoregressive(oracle, objective, batch.prompt, batch.target.shape[1])
    assert torch.equal(raw, batch.target.flip(1)), "the method itself writes the goal first"
    assert torch.equal(decoding.decode(oracle, objective, batch.prompt, batch.target.shape[1]), batch.target)


def test_answers_come_from_the_models_own_tokens(make_objective, make_cheater, task):
    """Guards against teacher forcing in disguise: after a wrong first hop the walk goes on along the wrong arm."""
    batch = task.sample(20, generator(0, "data"))
    cheater = make_cheater(task, arm=lambda hop, hops: next(h for h in hops if h != hop))
    answer = decoding.decode(cheater, make_objective("next_token"), batch.prompt, 4)
    assert (answer[:, 1:] != batch.target[:, 1:]).all()
    assert (task.verify(batch.prompt, answer) == 1).all()


def test_first_hop_copies_the_start(make_objective, trunk: Trunk, batch, task):
    """The model was never trained on target[0], so the first hop must not be conditioned on a prediction of it."""
    for draws in (None, generator(0, "decode")):
        answer = decoding.decode(trunk, make_objective("first_hop"), batch.prompt, 2, generator=draws)
        assert torch.equal(answer[:, 0], task.start(batch.prompt))


@pytest.mark.parametrize("procedure", [name for name, found in decoding.PROCEDURES.items() if found.takes_prefix])
def test_a_given_beginning_is_kept(make_objective, trunk: Trunk, batch, procedure: str):
    """Guards against a procedure that claims to take a prefix and writes its own tokens there."""
    objective = make_objective({"autoregressive": "next_token", "confidence": "masked_diffusion"}[procedure])
    answer = decoding.PROCEDURES[procedure].answer
    own = answer(trunk, objective, batch.prompt, 4)
    prefix = (own[:, :2] + 1) % 10
    assert torch.equal(answer(trunk, objective, batch.prompt, 4, prefix=prefix)[:, :2], prefix)


def test_the_first_decoder_is_the_default(objective, trunk: Trunk, batch):
    default = decoding.decode(trunk, objective, batch.prompt, 4)
    assert torch.equal(default, decoding.decode(trunk, objective, batch.prompt, 4, procedure=objective.decoders[0]))


@pytest.mark.parametrize(
    ("name", "procedure", "message"),
    [
        ("next_token", "parallel", "parallel: NextToken cannot decode by it; choose one of autoregressive"),
        ("teacherless", "autoregressive", "autoregressive: Teacherless cannot decode by it; choose one of parallel"),
        ("next_token", "beam", "beam: NextToken cannot decode by it; choose one of autoregressive"),
    ],
)
def test_a_procedure_that_does_not_fit_is_refused(make_objective, trunk, batch, name, procedure, message):
    with pytest.raises(ConfigError, match=message):
        decoding.decode(trunk, make_objective(name), batch.prompt, 4, procedure=procedure)


def test_decoding_needs_no_gradients(objective, trunk: Trunk, batch):
    """Guards against memory that grows with the answer."""
    seen = []
    trunk.register_forward_hook(lambda module, args, hidden: seen.append(hidden.normed.requires_grad))
    decoding.decode(trunk, objective, batch.prompt, 4)
    assert seen
    assert not any(seen)
