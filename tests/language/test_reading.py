"""Readings of tokens, compared with their definition."""

import math

import pytest
import torch

from pitfalls.language import reading
from pitfalls.language.generation import RULES
from pitfalls.language.reading import expectations, read
from pitfalls.language.writing import write, write_and_read


@pytest.mark.parametrize("kind", ["gpt2", "llama", "mamba"])
def test_every_token_is_read_given_those_before_it(tiny, kind):
    """Guards against errors of the shift, and of texts of several lengths in one batch."""
    lm, _ = tiny(kind)
    texts = [[5, 9, 5, 7, 30, 2], [8, 4, 100]]
    for text, found in zip(texts, read(lm, texts), strict=True):
        assert math.isnan(found.entropy[0])
        for i in range(1, len(text)):
            with torch.no_grad():
                p = lm(input_ids=torch.tensor([text[:i]])).logits[0, -1].softmax(-1)
            assert found.p[i].item() == pytest.approx(p[text[i]].item(), rel=1e-3)
            assert found.top[i].item() == pytest.approx(p.max().item(), rel=1e-3)
            assert found.entropy[i].item() == pytest.approx(-(p * p.log()).sum().item(), rel=1e-3)
            assert found.end[i].item() == pytest.approx(p[1].item(), rel=1e-3)


def test_a_text_is_read_the_same_in_any_group(tiny, monkeypatch):
    """Guards against errors in the split into groups."""
    lm, _ = tiny("gpt2")
    texts = [[i + 2, 9, 5, 7] for i in range(5)]
    together = read(lm, texts)
    monkeypatch.setattr(reading, "MAX_TOKENS", 8)
    sizes = []
    monkeypatch.setattr(reading, "expectations", lambda lm, group: sizes.append(len(group)) or expectations(lm, group))
    for a, b in zip(together, read(lm, texts), strict=True):
        torch.testing.assert_close(a.since(1).log_p, b.since(1).log_p)
    assert sizes == [2, 2, 1]


def test_a_uniform_model_is_uniform(tiny):
    """The entropy is ln V, and each probability 1/V."""
    lm, _ = tiny("gpt2")
    with torch.no_grad():
        lm.transformer.ln_f.weight.zero_()
        lm.transformer.ln_f.bias.zero_()
    found = read(lm, [[3, 4, 5]])[0]
    size = lm.config.vocab_size
    assert found.entropy[1:].tolist() == pytest.approx([math.log(size)] * 2, rel=1e-5)
    assert found.p[1:].tolist() == pytest.approx([1 / size] * 2, rel=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "mamba"])
@pytest.mark.parametrize("rule", ["greedy", "temperature 1.3", "repetition penalty 1.2", "beam search 4"])
def test_what_was_expected_while_writing_is_what_is_read_afterwards(tiny, kind, rule):
    """Guards against numbers that a rule has changed (temperature, penalty), padding, caches, and beams that changed places."""
    lm, _ = tiny(kind)
    rule = next(one for one in RULES if one.name == rule)
    prompts = [[5, 9, 30], [7, 8, 4, 11, 12]]
    texts, found = write_and_read(lm, prompts, 6, rule, "ban")
    assert texts == write(lm, prompts, 6, rule, "ban")
    for prompt, text, one in zip(prompts, texts, found, strict=True):
        wanted = read(lm, [[*prompt, *text]])[0].since(len(prompt))
        for name in ("log_p", "entropy", "top", "end"):
            torch.testing.assert_close(getattr(one, name), getattr(wanted, name), rtol=2e-3, atol=2e-4)
