"""Every decoding rule has the distribution that its name promises, with transformers' own `generate`."""

import pytest
import torch
from scipy import stats
from transformers import GPT2LMHeadModel, MambaConfig, MambaForCausalLM

from pitfalls.language.generation import RULES, Rule, generate, generate_with_logits, n_positions
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


@pytest.mark.parametrize("pad", [-1, None, 97, 10**9, [-1]])
def test_a_pad_token_that_the_model_lacks_is_not_written(lm, prompt, pad):
    """Guards against an IndexError, and against tokens outside of the vocabulary, where a config has -1 for "none"."""
    free = by_hand(lm, prompt, 12)
    first = int(free[0, 4])
    own = lm.generation_config
    try:
        lm.generation_config = type(own)()
        lm.generation_config.eos_token_id, lm.generation_config.pad_token_id = [first, -1, 97], pad
        written = generate(lm, prompt, 12, RULE["greedy"], end="stop")
        banned = generate(lm, prompt, 12, RULE["greedy"])
    finally:
        lm.generation_config = own
    at = int((free[0] == first).int().argmax())
    assert written[0].tolist() == free[0, : at + 1].tolist() + [first] * (written.shape[1] - at - 1)
    assert torch.equal(banned, by_hand(lm, prompt, 12, banned=[first]))


def left_padded(rows, pad):
    width = max(map(len, rows))
    tokens = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    return tokens, torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])


@pytest.fixture(scope="module")
def repeater():
    """A model that writes its last token again, if a rule lets it."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config()).eval()
    with torch.no_grad():
        model.transformer.wpe.weight.zero_()
        model.transformer.wte.weight.normal_()
        for name, weight in model.transformer.h.named_parameters():
            if "c_proj" in name:
                weight.zero_()
    assert generate(model, torch.tensor([[9]]), 4, RULE["greedy"]).tolist() == [[9, 9, 9, 9]]
    return model


READS_ITS_PREFIX = {
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 2},
    "repetition_penalty": {"repetition_penalty": 50.0},
    "encoder_repetition_penalty": {"encoder_repetition_penalty": 0.02},
    "encoder_no_repeat_ngram_size": {"encoder_no_repeat_ngram_size": 2},
    "bad_words_ids": {"bad_words_ids": [[9, 9, 9], [7, 7]]},
    "sequence_bias": {"sequence_bias": [[[9, 9, 9], -500.0], [[7, 7], -500.0]]},
    "min_length": {"min_length": 9},
    "min_new_tokens": {"min_new_tokens": 3},
    "beams with n-grams": {"no_repeat_ngram_size": 2, "num_beams": 3},
    "beams": {"num_beams": 3, "length_penalty": 2.0},
    "none": {},
}


@pytest.mark.parametrize("end", ["stop", "ban"])
@pytest.mark.parametrize("options", READS_ITS_PREFIX.values(), ids=READS_ITS_PREFIX.keys())
def test_a_padded_prompt_has_the_answer_that_it_has_alone(repeater, options, end):
    """Guards against padding that counts as text: for n-grams, penalties, banned words and lengths."""
    lm, rule = repeater, Rule("x", options)
    rows = [[9], [5, 7, 5, 7, 3, 2, 1], [4, 9, 9], [7, 9], [6, 0], [0, 7]]
    own = lm.generation_config
    try:
        lm.generation_config = type(own)(eos_token_id=0, pad_token_id=3)
        alone = [generate(lm, torch.tensor([row]), 8, rule, end=end)[0].tolist() for row in rows]
        for pad in {0, 7, 9, *(answer[0] for answer in alone)}:
            tokens, mask = left_padded(rows, pad)
            together = generate(lm, tokens, 8, rule, attention_mask=mask, end=end).tolist()
            for answer, wanted in zip(together, alone, strict=True):
                assert answer == wanted + [3] * (len(answer) - len(wanted))
    finally:
        lm.generation_config = own


def test_logits_of_padded_prompts_are_those_of_each_alone(lm):
    """Guards against rows that change places between the groups of one length."""
    rows, rule = [[9, 8, 3], [5, 7, 5, 7], [4, 3, 1]], RULE["no repeated 3-gram"]
    tokens, mask = left_padded(rows, 0)
    new, logits = generate_with_logits(lm, tokens, 5, rule, attention_mask=mask)
    for i, row in enumerate(rows):
        alone, own = generate_with_logits(lm, torch.tensor([row]), 5, rule)
        assert torch.equal(new[i], alone[0])
        torch.testing.assert_close(logits[i], own[0], rtol=1e-4, atol=1e-4)


def test_groups_of_prompts_do_not_share_their_draws():
    """Guards against the same noise for every length of prompt. All tokens are equally likely, so the noise alone decides."""
    torch.manual_seed(0)
    flat = GPT2LMHeadModel(config()).eval()
    with torch.no_grad():
        flat.transformer.ln_f.weight.zero_()
    rule = Rule("x", {"do_sample": True, "top_k": 0, "no_repeat_ngram_size": 30})
    tokens, mask = left_padded([[5], [9, 5]], 0)
    first, second = generate(flat, tokens, 20, rule, attention_mask=mask)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[1, 1, 0]], "zeros and then ones: prompts are padded on the left"),
        ([[1, 0, 1]], "zeros and then ones"),
        ([[0, 0, 0]], "zeros and then ones"),
        ([[0, 2, 1]], "zeros and then ones"),
    ],
)
def test_a_mask_that_does_not_pad_on_the_left_is_refused(lm, mask, message):
    """Guards against an answer that begins behind the padding of its prompt."""
    with pytest.raises(ConfigError, match=message):
        generate(lm, torch.tensor([[4, 5, 6]]), 2, RULE["greedy"], attention_mask=torch.tensor(mask))


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
        ({"rule": Rule("x", {"max_new_tokens": 3})}, "x: max_new_tokens: an argument of generate decides it; leave it out"),
        ({"rule": Rule("x", {"num_return_sequences": 3})}, "x: num_return_sequences: an argument of generate decides it"),
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


def test_beams_have_no_logits_of_one_text(lm, prompt):
    """Guards against logits that belong to several texts."""
    with pytest.raises(ConfigError, match="x: beams change places, so their logits are not those of one text"):
        generate_with_logits(lm, prompt, 4, Rule("x", {"num_beams": 2}))


@pytest.mark.parametrize(("said", "longest"), [(-1, None), (0, None), (48, 48)])
def test_a_limit_below_one_is_none(said: int, longest: int | None):
    """Guards against "has -1 positions, and the checks need 17": XLNet writes that nothing limits it in this way."""
    lm = GPT2LMHeadModel(config())
    lm.config.n_positions = said  # what GPT-2 calls max_position_embeddings
    assert n_positions(lm) == longest
