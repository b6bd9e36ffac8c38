"""The files that the degeneration lab writes: ``record.json`` of a model, and ``path_star.json`` of path-star runs.

The same classes write and read them. Neither torch nor transformers is imported here, so that reports start fast.
"""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType, field

from pitfalls.language.lab_settings import LabSettings
from pitfalls.runs.counts import Count, Natural, Positive
from pitfalls.runs.records import Hardware


class Estimate(Struct, frozen=True, forbid_unknown_fields=True):
    """A value with its interval at 95 %."""

    value: float
    low: float
    high: float
    n: int
    """Number of values behind the mean."""
    least_high: float | UnsetType = UNSET
    """For a share, the upper end of its interval if all values were 0."""
    most_low: float | UnsetType = UNSET
    """For a share, the lower end of its interval if all values were 1."""


class LabModel(Struct, frozen=True, forbid_unknown_fields=True):
    """The model that was measured."""

    class_name: str = field(name="class")
    """Name of its class in transformers."""
    parameters: int
    precision: str
    end_tokens: list[int]
    weights: str
    """Twelve hex digits that identify its weights."""


class LabSource(Struct, frozen=True, forbid_unknown_fields=True):
    """The origin of the model."""

    name: str
    source: str
    revision: str | None


class LoopSummary(Struct, frozen=True, forbid_unknown_fields=True):
    """The loops of greedy texts. Places and periods count tokens."""

    rate: Estimate | None
    """Share of texts that end in a loop."""
    by_style: dict[str, Estimate | None]
    """The same share by style of the prompt."""
    start: Estimate | None
    """Place where the first copy begins."""
    period: list[int]
    formed: list[int]
    """Places where the third copy is complete."""
    found: int
    """Number of loops in all texts, those that were left included."""
    ended: Estimate | None
    """Share of loops that were left."""
    tokens: int
    """Number of tokens of a text."""


class Means(Struct, frozen=True, forbid_unknown_fields=True):
    """The means over the tokens of a stretch of text."""

    p: Estimate | None
    """Probability of the tokens."""
    top: Estimate | None
    """Probability of the likeliest token."""
    entropy: Estimate | None
    """Entropy in nats."""


class CopyRow(Struct, frozen=True, forbid_unknown_fields=True):
    """The means over a copy of a greedy loop, counted from 1. See `Means`."""

    copy: int
    p: Estimate
    top: Estimate
    entropy: Estimate


class CopySummary(Struct, frozen=True, forbid_unknown_fields=True):
    """The means by copy of greedy loops, and over the text before them."""

    before: Means
    rows: list[CopyRow]


class UnitRow(Struct, frozen=True, forbid_unknown_fields=True):
    """The means over a copy of a unit that is repeated by hand, by the number of copies before it. See `Means`."""

    before: int
    p: Estimate
    top: Estimate
    entropy: Estimate


class OnsetPoint(Struct, frozen=True, forbid_unknown_fields=True):
    """The means at one distance from the start of a greedy loop."""

    offset: int
    """Distance from the first copy in tokens."""
    entropy: Estimate | None
    """Entropy in nats."""
    end: Estimate | None
    """Probability of end-of-text."""


class OnsetSummary(Struct, frozen=True, forbid_unknown_fields=True):
    """The tokens before and after the start of a greedy loop."""

    curve: list[OnsetPoint]
    spike: Estimate | None
    """Entropy in the window before the loop minus that of the text before the window, in nats."""
    end_near: Estimate | UnsetType | None = UNSET
    """Share of loops near whose start the model wanted to stop. A model without end-of-text has none."""
    end_elsewhere: Estimate | UnsetType | None = UNSET
    """The same share for stretches before the loop."""


class RuleRow(Struct, frozen=True, forbid_unknown_fields=True):
    """The texts of a decoding rule, from scratch and from loops."""

    rule: str
    loops: Estimate | None
    """Share of texts that end in a loop."""
    escapes: Estimate | None
    """Share of formed loops that are left for a text that ends in no loop."""
    leaves: Estimate | None
    """Share of formed loops that are left."""
    rep_4: Estimate | None
    """Share of repeated 4-grams."""
    distinct_2: float
    """Share of different 2-grams."""
    surprisal: Estimate | None
    """Mean surprisal in nats per token."""
    noise: Estimate | None
    """Share of texts that are noise."""


class MapRow(Struct, frozen=True, forbid_unknown_fields=True):
    """The shares of n texts that loop, that are noise, and that are neither, at one temperature and repetition penalty."""

    temperature: float
    penalty: float
    n: int
    loop: float
    text: float
    noise: float
    surprisal: Estimate | None
    """Mean surprisal in nats per token."""


class ContextRow(Struct, frozen=True, forbid_unknown_fields=True):
    """The predictions of the same targets after one length of context. See `lab_parts.LengthRow`."""

    length: int
    nll: Estimate
    entropy: Estimate
    kl: Estimate
    agreement: Estimate


class LoopContextRow(Struct, frozen=True, forbid_unknown_fields=True):
    """The mean probability of the next tokens of a formed loop after one length of context."""

    length: int
    p: Estimate


class TailBin(Struct, frozen=True, forbid_unknown_fields=True):
    """A bin of contexts of similar entropy."""

    entropy: float
    """Mean entropy in nats."""
    tail: float
    """Mean mass of the tail."""
    tails: list[float]
    """The 10 %, 50 % and 90 % points of the mass of the tail."""


class TailSummary(Struct, frozen=True, forbid_unknown_fields=True):
    """The entropy beside the mass of the tail."""

    correlation: Estimate | None
    """Spearman's rank correlation."""
    contexts: int
    bins: list[TailBin]


class SignRow(Struct, frozen=True, forbid_unknown_fields=True):
    """The quality of a linear probe for repetition."""

    layer: int | None
    """Layer that it reads. It is None for the probe that knows only the position."""
    auc: Estimate | None
    """Area under the ROC curve."""


class HeadRow(Struct, frozen=True, forbid_unknown_fields=True):
    """The numbers of a model while n heads are silenced."""

    kind: str
    """Choice of the heads: "none", "strongest" or "random"."""
    n: int
    loops: Estimate | None
    """Probability of the fourth copy of a formed loop."""
    prose: Estimate | None
    """Cross-entropy of prose in nats."""
    written: Estimate | None
    """Share of greedy texts that end in a loop."""


class ScoredHead(Struct, frozen=True, forbid_unknown_fields=True):
    """A head with its induction score."""

    layer: int
    head: int
    score: float


class HeadSummary(Struct, frozen=True, forbid_unknown_fields=True):
    """The heads of a model, and the effect of silencing some of them."""

    count: int
    rows: list[HeadRow]
    strongest: list[ScoredHead]


class Strip(Struct, frozen=True, forbid_unknown_fields=True):
    """A greedy text for the report, token by token."""

    name: str
    style: str
    tokens: list[str]
    copy: list[int]
    """Number of the copy of the final loop, or 0 outside of the loop."""
    entropy: list[float]
    p: list[float]
    end: list[float]


class LabOrigin(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that the numbers of a record depend on."""

    model: LabModel
    plan: str
    """Twelve hex digits that identify settings, prompts and units."""
    settings: LabSettings
    source: LabSource
    wall_s: float
    """Time of all measurements in seconds."""
    commit: str | None
    dirty: bool | None
    versions: dict[str, str]
    hardware: Hardware


class LabRecord(LabOrigin, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ``record.json`` of a lab: all its measurements on a model."""

    ending: str
    """Treatment of end-of-text in all texts but those of ``loops``: "ban" or "ignore"."""
    loops: dict[str, LoopSummary]
    copies: CopySummary
    onset: OnsetSummary
    units: dict[str, list[UnitRow]]
    rules: list[RuleRow]
    map: list[MapRow]
    context: list[ContextRow]
    context_of_loops: list[LoopContextRow]
    tail: TailSummary
    sign: list[SignRow]
    heads: HeadSummary | None
    """Measurements on heads. It is None if the model has no heads that can be observed."""
    strips: list[Strip]
    measures: dict[str, Estimate]
    """The measures that decide about the beliefs, by name."""


class PastGoal(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An entry of ``path_star.json``: the tokens that a path-star run writes after the goal (`past_the_goal`)."""

    run: str
    objective: str
    graph: str
    seed: int
    samples: int
    """Number of training samples that the run has seen."""
    tokens: Positive
    """Number of tokens that were written after the path."""
    graphs: int
    exact_match: Estimate
    first_hop_place: Natural
    """Place of the first hop in the order in which the run writes."""
    entropy: list[Estimate]
    """Entropy in nats of each prediction on the path and after it."""
    next: Annotated[dict[str, float], Meta(min_length=1)]
    """Share of graphs by the kind of the first token after the path."""
    loops: Estimate
    """Share of graphs for which these tokens end in a loop."""
    periods: list[tuple[int, int]]
    """Periods of these loops, with the number of graphs."""
    entropy_in_loop: Estimate | None
    rep_2: float
    """Share of repeated 2-grams after the path."""
    forced: list[Count] | None
    """Counts of right predictions after gold tokens, by position, from the run's record."""
    after_right: list[Count] | None
    """Counts of right predictions after its own tokens, by position, among answers with a right first hop."""

    def __post_init__(self) -> None:
        on_path = len(self.entropy) - self.tokens
        if on_path < 2 or self.first_hop_place >= on_path:
            raise ValueError(f"entropy: {len(self.entropy)} entries for a path and {self.tokens} tokens after it")
