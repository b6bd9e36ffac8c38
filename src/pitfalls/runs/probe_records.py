"""What probes find, as a record keeps it. Each file of `pitfalls.probes` returns one of these structs."""

from collections.abc import Iterator

from msgspec import Struct

from pitfalls.runs.counts import Count, Natural, Positive


class ArmFollowing(Struct, frozen=True, forbid_unknown_fields=True):
    """Counts of answers by where they go after a forced wrong arm (`pitfalls.probes.arm_following`)."""

    follows: Count
    to_its_leaf: Count
    to_the_goal: Count
    back: Count
    elsewhere: Count


class FirstHopNode(Struct, frozen=True, forbid_unknown_fields=True):
    """Counts of answers by the node after the start (`pitfalls.probes.first_hop_node`)."""

    right: Count
    other_child: Count
    other_node: Count
    elsewhere: Count


class ForcedFree(Struct, frozen=True, forbid_unknown_fields=True):
    """Counts per target position, forced and after a right or wrong first hop (`pitfalls.probes.forced_free`)."""

    forced: list[Count]
    after_right: list[Count]
    after_wrong: list[Count]


class LearningOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """Number of training samples after which each target position was learned (`pitfalls.probes.learning_order`)."""

    learned: float
    """Accuracy from which on a position counts as learned."""
    samples: list[Natural | None]


class Memorisation(Struct, frozen=True, forbid_unknown_fields=True):
    """Counts of right first hops on training and test graphs (`pitfalls.probes.memorisation`)."""

    train: Count
    test: Count


class Snowball(Struct, frozen=True, forbid_unknown_fields=True):
    """Exact match, and the product of the forced accuracies (`pitfalls.probes.snowball`)."""

    predicted: float
    measured: Count
    given_right_first_hop: Count


class Moments(Struct, frozen=True, forbid_unknown_fields=True):
    """Sum, sum of squares and number of some values."""

    sum: float
    sum_sq: float
    n: Positive

    @property
    def mean(self) -> float:
        return self.sum / self.n


class Uncertainty(Struct, frozen=True, forbid_unknown_fields=True):
    """Entropy per target position in nats, given the gold tokens before it (`pitfalls.probes.uncertainty`)."""

    entropy: list[Moments]


class Verifier(Struct, frozen=True, forbid_unknown_fields=True):
    """Counts of graphs solved within k sampled answers. The keys are k as text (`pitfalls.probes.verifier`)."""

    solved: dict[str, Count]


class Probes(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Results of all probes. A result is None where the question makes no sense for the method."""

    arm_following: ArmFollowing | None = None
    first_hop: FirstHopNode | None = None
    forced_free: ForcedFree | None = None
    learning_order: LearningOrder | None = None
    memorisation: Memorisation | None = None
    other_decodings: dict[str, Count] | None = None
    """Exact matches by decoding procedure."""
    snowball: Snowball | None = None
    uncertainty: Uncertainty | None = None
    verifier: Verifier | None = None

    def per_position(self) -> Iterator[tuple[str, int]]:
        """Yield name and length of the lists with an entry per target position."""
        if self.uncertainty is not None:
            yield "entropy", len(self.uncertainty.entropy)
        if self.learning_order is not None:
            yield "samples", len(self.learning_order.samples)
        if self.forced_free is not None:
            for name in ("forced", "after_right", "after_wrong"):
                yield name, len(getattr(self.forced_free, name))
