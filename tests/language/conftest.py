"""A lab small enough for a test: a random model of two layers, words as tokens, and every part of the plan."""

from pathlib import Path
from pydoc_data.topics import topics

import pytest

from pitfalls.language.lab_settings import LabPlan, LabSettings, Prompt, Units
from pitfalls.models.pretrained import load_lm, load_tokenizer
from pitfalls.schemas import PretrainedModelConfig

TOPICS = ["execmodel", "try", "calls", "function"]
PROMPTS = (
    Prompt("one", "completion", "the value of an object"),
    Prompt("two", "chat", "what is a name ?"),
    Prompt("three", "completion", "a class definition is"),
    Prompt("four", "chat", "the call"),
)
WORDS = [" the", " of", " a"]


def settings(**changes):
    values = {
        "seed": 0,
        "n_prompts": 4,
        "loop_tokens": 60,
        "rule_tokens": 20,
        "draws": 2,
        "escape_tokens": 12,
        "map_prompts": 2,
        "map_tokens": 10,
        "temperatures": [0.0, 1.0],
        "penalties": [1.0, 1.3],
        "copies": 6,
        "n_units": 3,
        "window": 4,
        "context_lengths": [1, 32, 40],
        "windows_per_text": 1,
        "tail_tokens": 40,
        "silenced": [1],
        "random_draws": 2,
        "n_folds": 2,
        "topics": TOPICS,
    }
    return LabSettings(**values | changes)


def plan(**changes):
    sentences = [" the name of the class", " an object is a value", " a call of a function"]
    return LabPlan(settings(**changes), PROMPTS, Units("of the", sentences, WORDS))


def model_config(folder: Path):
    return PretrainedModelConfig(
        name="tiny", architecture="pretrained", init_from=None, source=str(folder), revision=None, dtype="fp32", new_tokens=False
    )


@pytest.fixture(scope="session")
def tiny(save_lm):
    """Model and tokenizer by family."""
    words = ["<s>", "</s>", *dict.fromkeys(" ".join(topics[name] for name in TOPICS).split())][:400]

    def load(kind):
        config = model_config(save_lm(kind, words, len(words), 128))
        return load_lm(config), load_tokenizer(config)

    return load
