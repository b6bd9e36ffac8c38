"""The types of the content of a run's files. The class that writes a file reads it too. Unknown fields are refused.

Files keep counts and never ratios, so that intervals over several runs stay exact. `pitfalls.runs.files.read_json` decodes them.
"""

from collections.abc import Iterator
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from pitfalls.runs.counts import Evaluation, Name, Natural, Positive, Scalar, Seconds, Split, Text, check_lengths, per_position
from pitfalls.runs.probe_records import Probes


class TaskRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """The task of a resolved config (`pitfalls.schemas.TaskConfig`)."""

    degree: Positive
    path_length: Annotated[int, Meta(ge=2)]
    n_values: Positive
    train_graphs: Positive | None
    test_graphs: Positive
    targets_per_graph: Positive


Nested = Scalar | list[Scalar] | dict[str, Scalar | list[Scalar]]
"""A value of ``model.sizes``: a number, a list such as ``layer_types``, or a mapping such as ``rope_parameters``."""


class ConfigRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """A resolved config. Other keys than those that reports read are kept as plain values."""

    task: TaskRecord
    model: dict[str, Scalar | dict[str, Nested]]
    objective: dict[str, Scalar]
    training: dict[str, Scalar]
    seed: Natural
    runs_dir: Text
    trackers: list[Text] | UnsetType = UNSET
    optimizer: dict[str, Scalar] | UnsetType = UNSET
    """Older records lack it: AdamW was the only one."""

    def __post_init__(self) -> None:
        for part, key, kind in READ_KEYS:
            value: Any = getattr(self, part).get(key)
            if type(value) is not kind or value in ("", 0):
                raise ValueError(f"{part}.{key}: {value!r} is no {'positive integer' if kind is int else 'text'}")
        start = self.model.get("init_from")
        if start is not None and not isinstance(start, str):
            raise ValueError(f"model.init_from: {start!r} is no text")

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
    def optimizer_name(self) -> str:
        """The name of the optimizer."""
        return "adamw" if self.optimizer is UNSET else str(self.optimizer["name"])

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

    def __post_init__(self) -> None:
        self.arms()
        if any(position >= len(self.answer) for position in self.answered):
            raise ValueError(f"answered: a position beyond the {len(self.answer)} of the answer")

    def arms(self) -> list[list[int]]:
        """Return the nodes of each arm without the start, in the order of the edges.

        Raises:
            ValueError: the edges are no star of equal arms, one of which ends at the goal.
        """
        children: dict[int, list[int]] = {}
        for parent, child in self.edges:
            children.setdefault(parent, []).append(child)
        arms = [[child] for child in children.get(self.start, [])]
        for arm in arms:
            while len(after := children.get(arm[-1], [])) == 1 and len(arm) < len(self.edges):
                arm.append(after[0])
        nodes = {self.start, *(node for arm in arms for node in arm)}
        equal = len({len(arm) for arm in arms}) == 1 and self.goal in [arm[-1] for arm in arms]
        if not equal or not len(nodes) == 1 + sum(map(len, arms)) == 1 + len(self.edges):
            raise ValueError(f"edges: no star of equal arms from {self.start}, one of which ends at {self.goal}")
        return arms

    def per_position(self) -> Iterator[tuple[str, int]]:
        """Yield name and length of the lists with an entry per target position."""
        lists = {"target": self.target, "answer": self.answer}
        if self.reading is not None:
            lists |= {name: getattr(self.reading, name) for name in self.reading.__struct_fields__}
        yield from ((name, len(entries)) for name, entries in lists.items())


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
    placement: dict[str, list[Text]] | UnsetType = UNSET
    """The weights that each optimizer updated, by its name. Older records lack it: AdamW updated all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        lists = [*per_position(self.evaluation.values()), *self.probes.per_position()]
        lists += [entry for example in self.examples for entry in example.per_position()]
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
