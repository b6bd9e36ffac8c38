"""The input of the degeneration lab: the files of ``conf/degeneration/``, and prose that comes with Python."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pitfalls.results.entries import convert, read_yaml
from pitfalls.schemas import ConfigError, check_choice

STYLES = ("completion", "chat")
SHORT = 32
"""Number of tokens of a short context. The loss after it is compared with the loss after the longest context."""
N_TARGETS = 8
"""Number of neighbouring targets that share a forward pass. The first has k tokens of context, the last k + 7."""
LEAST = {"copies": 6, "rule_tokens": 4, "n_prompts": 2, "n_folds": 2}
"""The smallest settings that the summary can use."""


class LabSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The numbers of prompts, texts and tokens of a lab. ``conf/degeneration/full.yaml`` explains each."""

    seed: int
    n_prompts: int
    loop_tokens: int
    rule_tokens: int
    draws: int
    escape_tokens: int
    map_prompts: int
    map_tokens: int
    temperatures: list[float]
    penalties: list[float]
    copies: int
    n_units: int
    window: int
    context_lengths: list[int]
    windows_per_text: int
    tail_tokens: int
    silenced: list[int]
    random_draws: int
    n_folds: int
    topics: list[str]

    def __post_init__(self) -> None:
        for name, value in msgspec.structs.asdict(self).items():
            if name != "seed" and isinstance(value, int) and value < 1:
                raise ValueError(f"{name}={value}: it must be at least 1")
        if not all(value >= 0 for value in self.temperatures):
            raise ValueError(f"temperatures={self.temperatures}: all must be at least 0")
        for name in ("penalties", "silenced", "context_lengths"):
            if not all(value > 0 for value in getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)}: all must be above 0")
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: it must be at least {least}")
        if SHORT not in self.context_lengths or max(self.context_lengths) == SHORT:
            raise ValueError(f"context_lengths={self.context_lengths}: {SHORT} has to be one of them, and a longer one")

    @property
    def prose_tokens(self) -> int:
        """The number of tokens read from every prose text."""
        return max(self.tail_tokens, max(self.context_lengths) + N_TARGETS * self.windows_per_text)

    @property
    def most_new_tokens(self) -> int:
        """The largest number of tokens that are written after a prompt."""
        return max(self.loop_tokens + self.escape_tokens, self.rule_tokens, self.map_tokens)


class Prompt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A text for a model to continue, or a question to it."""

    name: str
    style: str
    """One of `STYLES`."""
    text: str


class Units(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The units that are repeated by hand."""

    before: str
    """Text before the first copy."""
    sentences: list[str]
    words: list[str]
    """Words that most tokenizers know as one token."""


@dataclass(frozen=True)
class LabPlan:
    """All settings, prompts and units of a lab, from its files."""

    settings: LabSettings
    prompts: tuple[Prompt, ...]
    units: Units

    def digest(self) -> str:
        """Return twelve hex digits that identify the plan."""
        return hashlib.sha256(msgspec.json.encode((self.settings, self.prompts, self.units))).hexdigest()[:12]


def read_lab_plan(folder: Path, name: str) -> LabPlan:
    """Return the plan in ``NAME.yaml``, ``prompts.yaml`` and ``units.yaml`` of a folder.

    Raises:
        ConfigError: a file is missing, or it has a wrong key or value.
    """
    settings = convert(f"{name}.yaml", read_yaml(folder / f"{name}.yaml"), LabSettings)
    prompts = convert("prompts.yaml", read_yaml(folder / "prompts.yaml"), list[Prompt])
    units = convert("units.yaml", read_yaml(folder / "units.yaml"), Units)
    for prompt in prompts:
        check_choice(f"prompts.yaml: {prompt.name}: style", prompt.style, STYLES)
    for what, there in (
        ("n_prompts", len(prompts)),
        ("map_prompts", len(prompts)),
        ("n_units", len(units.sentences)),
        ("n_units", len(units.words)),
    ):
        if getattr(settings, what) > there:
            raise ConfigError(f"{name}.yaml: {what}={getattr(settings, what)}: there are {there}; add some, or ask for fewer")
    return LabPlan(settings, tuple(prompts[: settings.n_prompts]), units)


def prompt_tokens(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Return the tokens of a prompt. A chat prompt gets the model's own chat template, or a simple one if it has none."""
    if prompt.style == "completion":
        ids = tokenizer(prompt.text).input_ids
    elif tokenizer.chat_template:
        message = [{"role": "user", "content": prompt.text}]
        ids = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"]
    else:
        ids = tokenizer(f"Question: {prompt.text}\nAnswer:").input_ids
    return list(ids)


def beginning(tokenizer: Any) -> list[int]:
    """Return the tokens that the tokenizer puts before every text: its beginning-of-text token, or none."""
    ids = list(tokenizer("").input_ids)
    return ids[:1] if tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id] else []


def natural_texts(tokenizer: Any, topics: Sequence[str], n_tokens: int) -> list[list[int]]:
    """Return ``n_tokens`` tokens of prose per topic of Python's language reference (``pydoc_data``), with white space collapsed.

    They do not begin with a beginning-of-text token (see `beginning`).

    Raises:
        ConfigError: a topic does not exist or is too short.
    """
    from pydoc_data.topics import topics as reference  # 700 kB of text

    texts = []
    for name in topics:
        if name not in reference:
            raise ConfigError(f"topics: {name}: not in this Python's pydoc_data; it has {', '.join(sorted(reference)[:8])}, ...")
        ids = tokenizer(" ".join(reference[name].split()), add_special_tokens=False).input_ids
        if len(ids) < n_tokens:
            raise ConfigError(f"topics: {name}: {len(ids)} tokens, and {n_tokens} are read; take a longer one")
        texts.append(list(ids[:n_tokens]))
    return texts
