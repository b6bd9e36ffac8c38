"""The token ids of the task."""

import pytest

from pitfalls.schemas import ConfigError
from pitfalls.tasks.vocabulary import SPECIALS, Vocabulary


def test_node_values_are_their_own_ids_and_specials_follow():
    vocabulary = Vocabulary(50)
    assert vocabulary.size == 50 + len(SPECIALS)
    assert [vocabulary.id(symbol) for symbol in SPECIALS] == list(range(50, vocabulary.size))
    assert [vocabulary.symbol(token) for token in (0, 7, 49, 50, 51, 52)] == ["0", "7", "49", "|", "/", "="]


def test_text_of_tokens_and_back():
    """Guards against defect 34 of the official code: decoding what was encoded gives something else."""
    vocabulary = Vocabulary(12)
    tokens = list(range(vocabulary.size))
    words = vocabulary.text(tokens).split(" ")
    assert [int(word) if word.isdigit() else vocabulary.id(word) for word in words] == tokens


def test_the_pool_of_special_tokens_keeps_its_order():
    """Guards against a changed pool: it changes every trunk's shape, and silently every published number."""
    assert SPECIALS == ("|", "/", "=", "<dummy>", "<mask>", "<reg>", "<T>", "</T>", "<eos>", "<pad>")
    assert len(set(SPECIALS)) == len(SPECIALS)


def test_an_unknown_symbol_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"no special token '<pas>'.*<pad>"):
        Vocabulary(5).id("<pas>")


def test_a_token_outside_the_task_is_shown_as_such():
    """Guards against an error for a pretrained model, which can answer with any of its own tokens."""
    assert Vocabulary(5).text([4, 5, 5 + len(SPECIALS)]) == "4 | <?>"


# ------------------------------------------------------------------ tokens of a pretrained model


class Tokenizer:
    """The few methods of a Hugging Face tokenizer that are used: one token per listed text, the first ones special."""

    def __init__(self, texts: list[str], n_special: int = 2) -> None:
        self.texts, self.all_special_ids = texts, list(range(n_special))

    def __len__(self) -> int:
        return len(self.texts)

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [self.texts.index(text)] if text in self.texts else [2, 2]  # several tokens

    def decode(self, ids: list[int]) -> str:
        return "".join(self.texts[i] for i in ids)


SYMBOLS = ["|", "/", "=", "$", "_", "#", "[", "]", ".", ";"]
DIGITS = list("0123456789")


def test_numbers_and_symbols_take_their_own_tokens():
    tokenizer = Tokenizer(["<s>", "</s>", *DIGITS, " ", "10", "11", *SYMBOLS])
    tokens = Vocabulary.from_tokenizer(tokenizer, 12).model_tokens
    assert [token.text for token in tokens] == [*map(str, range(12)), *SYMBOLS]
    assert [tokenizer.texts[token.id] for token in tokens] == [token.text for token in tokens]


def test_a_number_that_is_a_token_after_a_space_only_takes_that():
    tokenizer = Tokenizer(["<s>", "</s>", *DIGITS, " ", " 10", *SYMBOLS])
    assert Vocabulary.from_tokenizer(tokenizer, 11).model_tokens[10].text == " 10"


def test_what_has_no_token_of_its_own_takes_words_and_never_a_special_one():
    """Guards against two node values with one token, and a node value that is the end of the text."""
    tokenizer = Tokenizer(["<s>", "</s>", *DIGITS, " ", "the", " the2", "of", *SYMBOLS[:-1], "and", "to", "é"])
    tokens = Vocabulary.from_tokenizer(tokenizer, 13).model_tokens
    assert [token.text for token in tokens[10:13]] == ["the", "of", "and"]
    assert tokens[-1].text == "to", "the last symbol's character is not in this vocabulary"
    assert len({token.id for token in tokens}) == 13 + len(SPECIALS)


def test_too_few_tokens_are_refused_with_the_count_and_the_remedies():
    tokenizer = Tokenizer(["<s>", "</s>", *DIGITS, " ", *SYMBOLS])
    message = r"single tokens for 20 of 22 node values and symbols; lower task.n_values=12 or set model.new_tokens=true"
    with pytest.raises(ConfigError, match=message):
        Vocabulary.from_tokenizer(tokenizer, 12)
