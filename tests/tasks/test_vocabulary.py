"""Token ids."""

import pytest

from pitfalls.tasks.vocabulary import SPECIALS, Vocabulary


def test_node_values_are_their_own_ids_and_specials_follow():
    vocabulary = Vocabulary(50)
    assert vocabulary.size == 50 + len(SPECIALS)
    assert [vocabulary.id(symbol) for symbol in SPECIALS] == list(range(50, vocabulary.size))
    assert [vocabulary.symbol(token) for token in (0, 7, 49, 50, 51, 52)] == ["0", "7", "49", "|", "/", "="]


def test_text_of_tokens_and_back():
    """Guards defect 34 of the official code: decoding what was encoded gives something else."""
    vocabulary = Vocabulary(12)
    tokens = list(range(vocabulary.size))
    words = vocabulary.text(tokens).split(" ")
    assert [int(word) if word.isdigit() else vocabulary.id(word) for word in words] == tokens


def test_the_pool_of_special_tokens_keeps_its_order():
    """A changed pool changes every trunk's shape and silently every published number: it must be a decision."""
    assert SPECIALS == ("|", "/", "=", "<dummy>", "<mask>", "<reg>", "<T>", "</T>", "<eos>", "<pad>")
    assert len(set(SPECIALS)) == len(SPECIALS)


def test_an_unknown_symbol_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"no special token '<pas>'.*<pad>"):
        Vocabulary(5).id("<pas>")


def test_a_token_outside_the_vocabulary_has_no_text():
    with pytest.raises(IndexError):
        Vocabulary(5).symbol(5 + len(SPECIALS))
