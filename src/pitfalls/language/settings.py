"""What the degeneration lab reads: ``conf/degeneration/``, and texts that nobody wrote for it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
import yaml

from pitfalls.schemas import ConfigError, check_choice

STYLES = ("completion", "chat")
SHORT = 32
"""The length of context that the longest is compared with."""


LEAST = {"copies": 6, "rule_tokens": 4, "n_prompts": 2, "n_folds": 2}
"""What the summary needs."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much of everything; ``conf/degeneration/full.yaml`` says what each number is."""

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
                raise ValueError(f"{name}={value}: at least 1")
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: at least {least}")
        if SHORT not in self.context_lengths or max(self.context_lengths) == SHORT:
            raise ValueError(f"context_lengths={self.context_lengths}: {SHORT} has to be one of them, and a longer one")


class Prompt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model goes on from, or is asked."""

    name: str
    style: str
    text: str


class Units(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is repeated by hand."""

    before: str
    """What stands before the first copy."""
    sentences: list[str]
    words: list[str]


@dataclass(frozen=True)
class LabPlan:
    """Everything that the lab takes from files."""

    settings: Settings
    prompts: tuple[Prompt, ...]
    units: Units

    def digest(self) -> str:
        """Twelve hex digits of all of it."""
        return hashlib.sha256(msgspec.json.encode((self.settings, self.prompts, self.units))).hexdigest()[:12]


def read_plan(folder: Path, name: str) -> LabPlan:
    """``NAME.yaml``, ``prompts.yaml`` and ``units.yaml`` of a folder.

    Raises:
        ConfigError: a file is not there, or not what it should be.
    """
    settings: Settings = _read(folder / f"{name}.yaml", Settings)
    prompts: list[Prompt] = _read(folder / "prompts.yaml", list[Prompt])
    units: Units = _read(folder / "units.yaml", Units)
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


def _read(path: Path, of_type: Any) -> Any:
    try:
        return msgspec.convert(yaml.safe_load(path.read_text()), of_type)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (msgspec.ValidationError, yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None


def prompt_tokens(tokenizer: Any, prompt: Prompt) -> list[int]:
    """A prompt as the model reads it: a chat prompt in the model's own chat template, or in a plain one where it has none."""
    if prompt.style == "completion":
        ids = tokenizer(prompt.text).input_ids
    elif tokenizer.chat_template:
        message = [{"role": "user", "content": prompt.text}]
        ids = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"]
    else:
        ids = tokenizer(f"Question: {prompt.text}\nAnswer:").input_ids
    return list(ids)


def beginning(tokenizer: Any) -> list[int]:
    """What the tokenizer puts before every text: its beginning-of-text token, or nothing."""
    ids = list(tokenizer("").input_ids)
    return ids[:1] if tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id] else []


def natural_texts(tokenizer: Any, topics: Sequence[str], n_tokens: int) -> list[list[int]]:
    """Prose by others that every Python carries: topics of the language reference (``pydoc_data``), white space collapsed.

    Nothing stands before them: see `beginning`.

    Raises:
        ConfigError: there is no such topic, or it is too short.
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


def padded(rows: Sequence[Sequence[int]], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Long[B,T], padded on the "left" or "right", and the mask that says where the tokens are.

    Padding is a row's own first token: a repetition penalty does not ask the mask what has been said before.
    """
    width = max(map(len, rows))
    tokens = torch.tensor([row[0] for row in rows])[:, None].repeat(1, width)
    mask = torch.zeros_like(tokens)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        tokens[i, place] = torch.tensor(row)
        mask[i, place] = 1
    return tokens, mask
