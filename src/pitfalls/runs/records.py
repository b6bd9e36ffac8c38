"""The types of the content of a run's files. The class that writes a file reads it too. Unknown fields are refused.

Files keep counts and never ratios, so that intervals over several runs stay exact. `pitfalls.runs.files.read_json` decodes them.
"""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

Natural = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.,=-]*\Z", max_length=200)]
"""The name of a run. It is the name of a folder, never a path."""
Text = Annotated[str, Meta(max_length=4096)]
Scalar = bool | int | float | Text | None
Split = Literal["test", "train"]
FIRST_HOP = 1
"""Index of the first hop among the target positions."""


class Count(Struct, frozen=True, forbid_unknown_fields=True):
    """A count: k of n rows. It is 0 of 0 if a method does not answer."""

    k: Natural
    n: Natural

    def __post_init__(self) -> None:
        if self.k > self.n:
            raise ValueError(f"{self.k} of {self.n} is no count of k among n")

    @property
    def share(self) -> float | None:
        """Share k/n, or None if n is 0."""
        return self.k / self.n if self.n else None

    def __add__(self, other: "Count") -> "Count":
        return Count(self.k + other.k, self.n + other.n)


class Evaluation(Struct, frozen=True, forbid_unknown_fields=True):
    """Counts over the rows of one evaluation. A target position that a method does not answer has n = 0.

    ``free_*`` comes from the method's own inference. ``forced_*`` reads each position given the gold tokens before it. The
    two differ for a cheat: free-running, a wrong first hop makes every later token of the arm wrong as well.
    """

    exact_match: Count
    first_hop: Count
    free_position_accuracy: list[Count]
    """A count per target position."""
    forced_position_accuracy: list[Count]
    """A count per target position."""
    right_arm: Count
    wrong_arm: Count
    broken_walk: Count
    decoder: Text
    wrong_arm_then_goal: Count | UnsetType = UNSET
    """Count of this outcome. The learning curves of the first runs do not have it."""

    @property
    def forced(self) -> list[float | None]:
        """Accuracy per target position under teacher forcing. It is None where the method does not answer."""
        return [count.share for count in self.forced_position_accuracy]

    @property
    def free(self) -> list[float | None]:
        """Accuracy per target position of the method's own inference. It is None where the method does not answer."""
        return [count.share for count in self.free_position_accuracy]

    def __add__(self, other: "Evaluation") -> "Evaluation":
        """Return the summed counts of two evaluations of the same method."""

        def added(name: str) -> Any:
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, list):
                return [a + b for a, b in zip(mine, theirs, strict=True)]
            return mine + theirs if isinstance(mine, Count) and isinstance(theirs, Count) else mine

        return Evaluation(**{name: added(name) for name in self.__struct_fields__})


class TaskRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """The task of a resolved config (`pitfalls.schemas.TaskConfig`)."""

    degree: Positive
    path_length: Annotated[int, Meta(ge=2)]
    n_values: Positive
    train_graphs: Positive | None
    test_graphs: Positive
    targets_per_graph: Positive


class ConfigRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """A resolved config. Other keys than those that reports read are kept as plain values."""

    task: TaskRecord
    model: dict[str, Scalar]
    objective: dict[str, Scalar]
    training: dict[str, Scalar]
    seed: Natural
    runs_dir: Text
    trackers: list[Text] | UnsetType = UNSET

    def __post_init__(self) -> None:
        for part, key, kind in READ_KEYS:
            value: Any = getattr(self, part).get(key)
            if type(value) is not kind or value in ("", 0):
                raise ValueError(f"{part}.{key}: {value!r} is no {'positive integer' if kind is int else 'text'}")

    @property
    def graph(self) -> str:
        """The graph as G(d,l)."""
        return f"G({self.task.degree},{self.task.path_length})"

    @property
    def objective_name(self) -> str:
        return str(self.objective["name"])

    @property
    def model_name(self) -> str:
        """The name of the model's preset."""
        return str(self.model["name"])

    @property
    def architecture(self) -> str:
        """The architecture of the model, such as gpt2 or mamba."""
        return str(self.model["architecture"])

    @property
    def precision(self) -> str:
        """The precision that the model was trained in, such as bf16 or fp32."""
        return str(self.training["precision"])

    @property
    def max_samples(self) -> int:
        """The most training samples that the run may see."""
        n_steps, batch_size = (self.training[key] for key in ("n_steps", "batch_size"))
        assert isinstance(n_steps, int)
        assert isinstance(batch_size, int)
        return n_steps * batch_size


READ_KEYS: tuple[tuple[str, str, type], ...] = (
    ("model", "name", str),
    ("model", "architecture", str),
    ("objective", "name", str),
    ("training", "precision", str),
    ("training", "n_steps", int),
    ("training", "batch_size", int),
)
"""Part, key and type of the values of a config that reports read."""


class Hardware(Struct, frozen=True, forbid_unknown_fields=True):
    """The machine that something was run or measured on."""

    cpu: Text
    n_cpus: Positive | None
    """Number of CPU cores that the system shows, or None if it does not say."""
    system: Text

    @property
    def machine(self) -> str:
        """The CPU and its number of cores, in words."""
        return f"{self.cpu}, {self.n_cpus} cores"


class SampleCost(Struct, frozen=True, forbid_unknown_fields=True):
    """The mean cost of one training sample (`pitfalls.training.cost`)."""

    flops: Annotated[float, Meta(ge=0)]
    """FLOP of the matrix products of forward and backward, heads and second encoders included. A multiply-add is two."""
    trunk_tokens: Annotated[float, Meta(ge=0)]
    """Positions that the trunk computes."""


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


def per_position(evaluations: Iterable[Evaluation]) -> Iterator[tuple[str, int]]:
    """Yield name and length of the lists with a count per target position."""
    for evaluation in evaluations:
        yield "forced_position_accuracy", len(evaluation.forced_position_accuracy)
        yield "free_position_accuracy", len(evaluation.free_position_accuracy)


def check_lengths(lists: Iterable[tuple[str, int]], path_length: int) -> None:
    """Refuse lists that do not have an entry per target position.

    Raises:
        ValueError: names the first such list.
    """
    for name, length in lists:
        if length != path_length:
            raise ValueError(f"{name}: {length} entries for {path_length} target positions")


class Reading(Struct, frozen=True, forbid_unknown_fields=True):
    """Predictions of a model while it wrote an answer, per target position."""

    p_answer: list[float]
    p_target: list[float]
    entropy: list[float]
    """Entropy in nats."""


class Example(Struct, frozen=True, forbid_unknown_fields=True):
    """One graph with a model's greedy answer, token by token. Node values and symbols are text."""

    edges: list[tuple[int, int]]
    """Edges (parent, child) in prompt order."""
    start: int
    goal: int
    target: list[str]
    answer: list[str]
    outcome: str | None
    """Outcome in words, such as "right arm". It is None for a method that does not answer whole paths."""
    answered: list[Natural]
    """Target positions at which the answer means something."""
    reading: Reading | None
    """Predictions along the answer. It is None if the method has no forced reading."""


class Summary(Struct, kw_only=True):
    """The part of ``record.json`` that tables of thousands of runs need. It is read alone in a third of the time."""

    run: Name
    seed: Natural
    samples_seen: Natural
    stopped_early: bool
    n_parameters: Natural
    wall_s: Seconds
    evaluation: dict[Split, Evaluation]
    config: ConfigRecord
    commit: Text | None
    dirty: bool | None

    def __post_init__(self) -> None:
        if "test" not in self.evaluation:
            raise ValueError("evaluation: the split `test` is missing")


class Record(Summary, kw_only=True, forbid_unknown_fields=True):
    """``record.json`` of a finished run."""

    finished: Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}\Z")]
    steps: Natural
    cpu_s: Seconds
    supervised_positions: list[Natural]
    model_tokens: dict[str, tuple[int, str]] | None = None
    """Token id and text that a pretrained model has for each node value and symbol."""
    probes: Probes
    examples: list[Example]
    versions: dict[str, Text]
    hardware: Hardware
    processes: Positive | UnsetType = UNSET
    """Number of processes that trained the run together. The first records lack this and the next three fields."""
    n_objective_parameters: Natural | UnsetType = UNSET
    """Number of parameters that the objective adds to the trunk's. ``n_parameters`` includes them."""
    horizon: Positive | UnsetType = UNSET
    """Number of target tokens ahead that a state is trained to predict."""
    cost: SampleCost | UnsetType = UNSET

    def __post_init__(self) -> None:
        super().__post_init__()
        lists = [*per_position(self.evaluation.values()), *self.probes.per_position()]
        check_lengths(lists, self.config.task.path_length)

    @property
    def test(self) -> Evaluation:
        """The final evaluation on the test graphs."""
        return self.evaluation["test"]


class EvaluationRow(Struct, tag_field="kind", tag="eval", forbid_unknown_fields=True):
    """A line of ``metrics.jsonl`` with an evaluation."""

    step: Natural
    samples: Natural
    split: Split
    evaluation: Evaluation


class TrainRow(Struct, tag_field="kind", tag="train"):
    """A line of ``metrics.jsonl`` with the numbers of a step."""

    step: Natural
    samples: Natural
    loss: float
    wall_s: Seconds
    samples_per_s: float
    grad_norm: float = 0.0
    lr: float = 0.0
    parts: dict[str, float] = {}
    """The terms of the loss, by name."""


MetricsRow = EvaluationRow | TrainRow


class CurvePoint(Struct, frozen=True, forbid_unknown_fields=True):
    """One evaluation of a learning curve in the kept records."""

    samples: Natural
    split: Split
    evaluation: Evaluation


class Failure(Struct, frozen=True, forbid_unknown_fields=True):
    """``failure.json``: the reason why a run failed, and the overrides that start it again."""

    error: str
    overrides: list[str]
    traceback: str


class Score(Struct, frozen=True, forbid_unknown_fields=True):
    """The score of a finished run on other graphs, as ``scripts/evaluate.py --json`` prints it."""

    run: Name
    data: Text | None
    """Name of the file of graphs. None: new graphs."""
    seconds: Seconds
    evaluation: Evaluation
