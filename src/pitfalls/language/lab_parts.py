"""The parts of the degeneration lab: the key of each part, its content, and its file.

A lab is measured in parts, so that a stopped lab can continue. A key is an object with fields, and its type decides the type of
the content. For example, ``HeadReadings("random", 4, 1)`` is the second draw of four silenced heads. Only `part_file` makes a
file name from a key.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Generic, Literal, TypeVar, get_args

from msgspec import Struct

from pitfalls.language.repetition import Loop, final_loop

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
NOISE = math.log(1000)
"""Surprisal in nats per token above which a text is noise: that of a choice among 1,000 equally likely tokens."""
Ending = Literal["ban", "ignore"]
"""Treatment of the end-of-text token: it is never written ("ban"), or written like any other ("ignore")."""
Choice = Literal["none", "strongest", "random"]
"""Choice of the heads that are silenced."""
Kind = Literal["loop", "noise", "text"]


# ---- contents of parts: numbers, texts and lists, as in the files


class GreedyText(Struct, frozen=True, forbid_unknown_fields=True):
    """A greedy text, with the model's predictions at each of its T tokens."""

    name: str
    """Name of the prompt."""
    style: str
    """Style of the prompt."""
    prompt: list[int]
    """Tokens of the prompt."""
    tokens: list[int]
    """The T tokens that were written after it."""
    p: list[float]
    """Probability of each token."""
    entropy: list[float]
    """Entropy of each prediction in nats."""
    top: list[float]
    """Probability of the likeliest token at each place."""
    end: list[float]
    """Probability of end-of-text at each place."""


class CopyMeans(Struct, frozen=True, forbid_unknown_fields=True):
    """The means over the tokens of each copy of a repeated unit, from the second copy on."""

    p: list[float]
    """Probability of the copy's tokens."""
    top: list[float]
    """Probability of the likeliest token."""
    entropy: list[float]
    """Entropy in nats."""


class RuleText(Struct, frozen=True, forbid_unknown_fields=True):
    """A text that a decoding rule wrote."""

    tokens: list[int]
    surprisal: float
    """Mean surprisal of the tokens in nats, under the model itself (temperature 1, no penalty)."""

    @property
    def kind(self) -> Kind:
        """Return "loop" if the text ends in a loop, else "noise" or "text" by its surprisal."""
        if final_loop(self.tokens) is not None:
            return "loop"
        return "noise" if self.surprisal > NOISE else "text"


class Continuation(Struct, frozen=True, forbid_unknown_fields=True):
    """The continuation of a loop after its third copy."""

    name: str
    """Name of the prompt."""
    left_after: int | None
    """Number of new tokens that stayed in the loop, or None if all did."""
    escaped: bool
    """Whether the loop was left and the text does not end in any loop."""


class LengthRow(Struct, frozen=True, forbid_unknown_fields=True):
    """The predictions of the same targets after one length of context. Lists have one number per window of targets."""

    length: int
    """Number of tokens of context."""
    nll: list[float]
    """Cross-entropy in nats."""
    entropy: list[float]
    """Entropy in nats."""
    kl: list[float]
    """Divergence from the predictions after the longest context to these, in nats."""
    agreement: list[float]
    """Share of targets with the same likeliest token as after the longest context."""


class TailMass(Struct, frozen=True, forbid_unknown_fields=True):
    """The entropy and the tail of a prediction, one number per context of a text."""

    entropy: list[float]
    """Entropy of the prediction in nats."""
    tail: list[float]
    """Probability mass outside of the likeliest tokens."""


class LoopInContext(Struct, frozen=True, forbid_unknown_fields=True):
    """The probability that a formed loop continues, by number of tokens of context."""

    name: str
    """Name of the prompt."""
    period: int
    """Length of the loop's unit in tokens."""
    p: dict[int, float]
    """Mean probability of the next tokens of the loop, by number of tokens of context."""


class LayerAreas(Struct, frozen=True, forbid_unknown_fields=True):
    """The quality of a linear probe that distinguishes repeating tokens from others."""

    layer: int | None
    """Layer that the probe reads (0: embeddings). It is None for the probe that knows only the position."""
    auc: list[float | None]
    """Area under the ROC curve, by prompt. It is None if all or none of the tokens repeat."""


class HeadReading(Struct, frozen=True, forbid_unknown_fields=True):
    """The readings of a model while heads are silenced."""

    heads: list[tuple[int, int]]
    """Layer and head of each."""
    loops: list[float]
    """Mean probability of the fourth copy, by formed loop."""
    prose: list[float]
    """Cross-entropy of prose in nats, by text."""


# ---- keys


@dataclass(frozen=True)
class PartKey(Generic[T_co]):
    """The key of a part. T_co is the type of the content."""

    kind: ClassVar[str]
    """First word of the file's name."""
    holds: ClassVar[Any]
    """The type T_co, for decoding."""

    def __init_subclass__(cls, kind: str) -> None:
        cls.kind, cls.holds = kind, get_args(cls.__dict__["__orig_bases__"][0])[0]

    def __str__(self) -> str:
        return "/".join([self.kind, *(str(getattr(self, field.name)) for field in fields(self))])


@dataclass(frozen=True)
class GreedyTexts(PartKey[list[GreedyText]], kind="loops"):
    """One greedy text per prompt."""

    ending: Ending


@dataclass(frozen=True)
class RepeatedUnits(PartKey[list[CopyMeans]], kind="units"):
    """The copies of units that are repeated by hand, one entry per unit."""

    unit: Literal["sentence", "random", "word"]


@dataclass(frozen=True)
class RuleTexts(PartKey[list[RuleText]], kind="rules"):
    """The texts of a decoding rule. The draws of a prompt are neighbours."""

    rule: str


@dataclass(frozen=True)
class LoopEscapes(PartKey[list[Continuation]], kind="escapes"):
    """The continuations of loops by a decoding rule. The draws of a loop are neighbours."""

    rule: str


@dataclass(frozen=True)
class MapTexts(PartKey[list[RuleText]], kind="map"):
    """The texts of one temperature and one repetition penalty."""

    temperature: float
    penalty: float


@dataclass(frozen=True)
class ContextLengths(PartKey[list[LengthRow]], kind="context"):
    """The predictions on one topic by length of context, the longest first."""

    topic: str


@dataclass(frozen=True)
class TailMasses(PartKey[TailMass], kind="tail"):
    """The entropy and the tail on one topic."""

    topic: str


@dataclass(frozen=True)
class LoopsInContext(PartKey[list[LoopInContext]], kind="context-of-loops"):
    """The formed loops by length of context, one entry per loop."""


@dataclass(frozen=True)
class RepetitionSign(PartKey[list[LayerAreas]], kind="sign"):
    """The linear probes for repetition, one entry per layer."""


@dataclass(frozen=True)
class HeadScores(PartKey[list[list[float]]], kind="heads/scores"):
    """The induction score of every head, by layer and head."""


@dataclass(frozen=True)
class HeadReadings(PartKey[HeadReading], kind="heads/read"):
    """The readings of loops and prose while n heads are silenced."""

    choice: Choice
    n: int
    draw: int


@dataclass(frozen=True)
class HeadTexts(PartKey[list[list[int]]], kind="heads/write"):
    """The tokens of one greedy text per prompt, written while n heads are silenced."""

    choice: Choice
    n: int
    draw: int


def part_file(folder: Path, key: PartKey[Any]) -> Path:
    """Return the file that keeps a part."""
    return folder / f"{str(key).replace('/', '--')}.json"


@dataclass(frozen=True)
class Step(Generic[T]):
    """A part to be measured, with the function that measures it."""

    key: PartKey[T]
    measure: Callable[[], T]


K = TypeVar("K", bound=PartKey[Any])


class Parts:
    """The parts of a lab by key, in the order in which they were measured."""

    def __init__(self, held: Mapping[PartKey[Any], Any] | None = None) -> None:
        self._held: dict[PartKey[Any], Any] = dict(held or {})

    def __getitem__(self, key: PartKey[T]) -> T:
        part: T = self._held[key]
        return part

    def __setitem__(self, key: PartKey[T], part: T) -> None:
        self._held[key] = part

    def __contains__(self, key: PartKey[Any]) -> bool:
        return key in self._held

    def keys(self, kind: type[K]) -> list[K]:
        """Return the keys of one kind, in order."""
        return [key for key in self._held if isinstance(key, kind)]


# ---- functions of parts that several measurements and summaries use


def formed_loops(texts: Sequence[GreedyText]) -> list[tuple[GreedyText, Loop]]:
    """Return the texts that end in a loop, each with its loop."""
    return [(text, loop) for text in texts if (loop := final_loop(text.tokens)) is not None]


def just_formed(text: GreedyText, loop: Loop) -> list[int]:
    """Return the tokens of prompt and text up to the end of the third copy."""
    return [*text.prompt, *text.tokens[: loop.formed]]


def unit_of(text: GreedyText, loop: Loop) -> list[int]:
    """Return the tokens that a loop repeats."""
    return text.tokens[loop.start : loop.start + loop.period]


def by_draw(rows: Sequence[T], draws: int) -> list[Sequence[T]]:
    """Return the rows in groups: one group per prompt or loop, with one row per draw."""
    return [rows[i : i + draws] for i in range(0, len(rows), draws)]


def mean_over_draws(draws: Sequence[Sequence[float]]) -> list[float]:
    """Return the means over draws, one per loop, text or prompt. The list is empty if there are no draws."""
    return [fmean(row) for row in zip(*draws, strict=True)]
