"""Every decoding rule has the distribution that its name promises, with transformers' own `generate`."""

import pytest
import torch
from scipy import stats
from transformers import GPT2LMHeadModel, MambaConfig, MambaForCausalLM

from pitfalls.language.generation import RULES, Rule, generate
from pitfalls.schemas import ConfigError
from tests.language.broken_models import config

RULE = {rule.name: rule for rule in RULES}


@pytest.fixture(scope="module")
def lm():
    torch.manual_seed(0)
    return GPT2LMHeadModel(config()).eval()


@pytest.fixture
def prompt(lm):
    return torch.randint(1, 97, (3, 8), generator=torch.Generator().manual_seed(0))


def by_hand(lm, tokens, n_new, banned=()):
    for _ in range(n_new):
        logits = lm(tokens).logits[:, -1].index_fill(1, torch.tensor(banned, dtype=torch.long), -torch.inf)
        tokens = torch.cat([tokens, logits.argmax(-1, keepdim=True)], 1)
    return tokens[:, -n_new:]


def test_greedy_is_argmax_without_the_end(lm, prompt):
    """Guards against another default: the end-of-text token is never written, and nothing else is changed."""
    assert torch.equal(generate(lm, prompt, 12, RULE["greedy"]), by_hand(lm, prompt, 12, banned=[0]))
    assert torch.equal(generate(lm, prompt, 12, RULE["greedy"], end="ignore"), by_hand(lm, prompt, 12))


def test_the_models_own_settings_do_not_count(lm, prompt):
    """A chat model brings a temperature and a penalty of its own."""
    wanted = generate(lm, prompt, 12, RULE["greedy"])
    own = lm.generation_config
    try:
        lm.generation_config = type(own)(**{**own.to_dict(), "repetition_penalty": 5.0, "do_sample": True, "temperature": 9.0})
        changed = lm.generation_config
        assert torch.equal(generate(lm, prompt, 12, RULE["greedy"]), wanted)
        assert lm.generation_config is changed, "and they are left as they were"
    finally:
        lm.generation_config = own


def test_an_answer_stops_at_its_end(lm, prompt):
    """Guards against tokens after the end with end=stop. What follows has to be padding."""
    free = by_hand(lm, prompt, 12)
    first = int(free[0, 4])
    own = lm.generation_config
    try:
        lm.generation_config = type(own)(eos_token_id=first, pad_token_id=0)
        written = generate(lm, prompt[:1], 12, RULE["greedy"], end="stop")[0]
    finally:
        lm.generation_config = own
    at = int((free[0] == first).int().argmax())
    assert written.tolist() == free[0, : at + 1].tolist()


def test_four_beams_find_likelier_answers(lm, prompt):
    def log_likelihood(answer):
        logits = lm(torch.cat([prompt, answer], 1)).logits[:, prompt.shape[1] - 1 : -1]
        return logits.index_fill(2, torch.tensor([0]), -torch.inf).log_softmax(-1).gather(2, answer[..., None]).sum()

    with torch.no_grad():
        beam, greedy = (generate(lm, prompt, 6, RULE[name]) for name in ("beam search 4", "greedy"))
        assert log_likelihood(beam) > log_likelihood(greedy)


def test_seeds_are_seeds(lm, prompt):
    """The same seed gives the same text, and another seed another text. Torch's own state is not changed."""
    torch.manual_seed(7)
    before = torch.get_rng_state()
    a, b, c = (generate(lm, prompt, 12, RULE["temperature 1.3"], seed=seed) for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), before)


def nucleus(p, share):
    """Return the likeliest tokens, up to the one with which their sum reaches the share."""
    ranked, order = p.sort(descending=True)
    return torch.zeros_like(p).index_put((order,), ranked * (ranked.cumsum(0) - ranked < share))


@pytest.mark.parametrize(
    ("name", "keep"),
    [
        ("temperature 0.7", lambda p: (p.log() / 0.7).softmax(-1)),
        ("temperature 1", lambda p: p),
        ("temperature 1.3", lambda p: (p.log() / 1.3).softmax(-1)),
        ("top-k 40", lambda p: p * (p >= p.topk(40).values[-1])),
        ("top-p 0.9", lambda p: nucleus(p, 0.9)),
        ("min-p 0.1", lambda p: p * (p >= 0.1 * p.max())),
    ],
)
def test_sampled_rules_have_the_distribution_that_defines_them(name, keep):
    """A chi-square test of the first token of 4,000 answers. The model is unsure, so that every rule cuts something."""
    torch.manual_seed(0)
    flat = GPT2LMHeadModel(config()).eval()
    with torch.no_grad():
        flat.transformer.ln_f.weight.mul_(0.5)
    prompt = torch.arange(1, 9)[None].expand(4000, -1)
    with torch.no_grad():
        p = flat(prompt[:1]).logits[0, -1].index_fill(0, torch.tensor([0]), -torch.inf).softmax(-1)
        kept = keep(p).nan_to_num(0.0).double()
    expected = kept / kept.sum() * 4000
    counts = torch.bincount(generate(flat, prompt, 1, RULE[name])[:, 0], minlength=97).double()
    assert counts[expected == 0].sum() == 0, "what the rule cuts is never drawn"
    likely = expected >= 5
    observed, wanted = (torch.cat([x[likely], x[~likely].sum()[None]]) for x in (counts, expected))
    observed, wanted = observed[wanted > 0], wanted[wanted > 0]
    assert stats.chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue > 1e-3


def test_no_trigram_comes_twice(lm, prompt):
    for row in generate(lm, prompt, 40, RULE["no repeated 3-gram"]):
        whole = row.tolist()
        trigrams = list(zip(whole, whole[1:], whole[2:], strict=False))
        assert len(set(trigrams)) == len(trigrams)


def test_an_assistant_changes_no_answer(lm, prompt):
    """Assisted greedy decoding, with the model itself and with another one."""
    torch.manual_seed(1)
    other = GPT2LMHeadModel(config()).eval()
    for row in prompt[:, None]:
        for assistant in (lm, other):
            assert torch.equal(generate(lm, row, 12, RULE["greedy"], assistant=assistant), generate(lm, row, 12, RULE["greedy"]))


def mamba():
    return MambaForCausalLM(MambaConfig(vocab_size=97, hidden_size=32, num_hidden_layers=1)).eval()


def other_vocabulary():
    smaller = config()
    smaller.vocab_size = 90
    return GPT2LMHeadModel(smaller).eval()


def short():
    few = config()
    few.n_positions = 10
    return GPT2LMHeadModel(few).eval()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": Rule("x", {"temperatur": 1})}, "x: temperatur: transformers' GenerationConfig has no such option"),
        ({"rule": Rule("x", {"temperature": 2.0})}, "x: temperature=2.0 does nothing without do_sample=True"),
        ({"rule": Rule("x", {"do_sample": True, "num_beams": 2})}, "x: do_sample=True and num_beams=2 contradict"),
        ({"n_new": 57}, "reads 64 tokens; a prompt of 8 and 57 new ones are too many"),
        ({"end": "never"}, "end=never: one of stop, ignore, ban"),
        ({"assistant": mamba}, "which the state of a MambaForCausalLM cannot"),
        ({"assistant": other_vocabulary}, "the assistant has 90 tokens and GPT2LMHeadModel 97"),
        ({"assistant": short}, "the assistant reads 10 tokens; a prompt of 8 and 4 new ones are too many"),
        ({"assistant": lambda: None, "rows": 3}, "one prompt at a time in transformers, got 3"),
    ],
)
def test_what_does_not_go_together_is_told(lm, prompt, change, message):
    """Each mistake is one line, before any compute."""
    given = {"n_new": 4, "rule": RULE["greedy"], "end": "ban"} | change
    n_rows = given.pop("rows", 1)
    if "assistant" in given:
        given["assistant"] = given["assistant"]() or lm
    with pytest.raises(ConfigError, match=message):
        generate(lm, prompt[:n_rows], **given)


def test_a_model_without_an_end_cannot_stop(prompt):
    lm = mamba()
    lm.generation_config.eos_token_id = None
    with pytest.raises(ConfigError, match="MambaForCausalLM has no end-of-text token"):
        generate(lm, prompt, 4, RULE["greedy"], end="stop")
