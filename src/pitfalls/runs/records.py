"""What the files of a run hold, as types that a reader checks (`pitfalls.runs.files.decode`); a count is kept, never a ratio."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from msgspec import Meta

Natural = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.,=-]*\Z", max_length=200)]
"""Of a run: a folder's name that is no path."""
Text = Annotated[str, Meta(max_length=4096)]
Scalar = bool | int | float | Text | None


class CountJson(TypedDict):
    """k of n; 0 of 0 where a method does not answer."""

    k: Natural
    n: Natural


class EvaluationJson(TypedDict):
    """See `pitfalls.evaluation.score.Evaluation`; the lists have a count per target position."""

    exact_match: CountJson
    first_hop: CountJson
    free_position_accuracy: list[CountJson]
    forced_position_accuracy: list[CountJson]
    right_arm: CountJson
    wrong_arm: CountJson
    wrong_arm_then_goal: NotRequired[CountJson]
    """Not in the learning curves of the first runs."""
    broken_walk: CountJson
    decoder: Text


Split = Literal["test", "train"]


class TaskJson(TypedDict):
    """See `pitfalls.schemas.TaskConfig`."""

    degree: Positive
    path_length: Annotated[int, Meta(ge=2)]
    n_values: Positive
    train_graphs: Positive | None
    test_graphs: Positive
    targets_per_graph: Positive


class ConfigJson(TypedDict):
    """A resolved config."""

    task: TaskJson
    model: dict[str, Scalar]
    objective: dict[str, Scalar]
    training: dict[str, Scalar]
    seed: Natural
    runs_dir: Text
    trackers: NotRequired[list[Text]]


class CostJson(TypedDict):
    """Of one training sample, on average (`pitfalls.training.cost.Cost`)."""

    flops: Annotated[float, Meta(ge=0)]
    trunk_tokens: Annotated[float, Meta(ge=0)]


class SummaryJson(TypedDict):
    """The part of ``record.json`` that tables of thousands of runs need."""

    run: Name
    seed: Natural
    samples_seen: Natural
    stopped_early: bool
    n_parameters: Natural
    wall_s: Seconds
    evaluation: dict[Split, EvaluationJson]
    config: ConfigJson
    commit: Text | None
    dirty: bool | None


class RecordJson(SummaryJson):
    """``record.json`` of a finished run."""

    finished: Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}\Z")]
    steps: Natural
    cpu_s: Seconds
    supervised_positions: list[Natural]
    model_tokens: NotRequired[dict[str, list[int | str]] | None]
    probes: dict[str, dict[str, Any] | None]
    examples: list[dict[str, Any]]
    versions: dict[str, Text]
    hardware: dict[str, str | int | None]
    processes: NotRequired[Positive]
    """That trained it together."""
    n_objective_parameters: NotRequired[Natural]
    """Those of n_parameters that the objective adds to the trunk's; not in the first records, as the two below."""
    horizon: NotRequired[Positive]
    """Target tokens ahead that a state is trained to predict."""
    cost: NotRequired[CostJson]


class EvaluationRow(TypedDict):
    """A line of ``metrics.jsonl`` with an evaluation."""

    kind: Literal["eval"]
    step: Natural
    samples: Natural
    split: Split
    evaluation: EvaluationJson


class TrainRow(TypedDict):
    """A line of ``metrics.jsonl`` with the numbers of a step, beside others such as the parts of the loss."""

    kind: Literal["train"]
    step: Natural
    samples: Natural
    loss: float
    wall_s: Seconds
    samples_per_s: float


class CurvePoint(TypedDict):
    """An evaluation of a learning curve, as it is kept."""

    samples: Natural
    split: Split
    evaluation: EvaluationJson


class KeptJson(TypedDict):
    """A file of ``results/*/records/``."""

    record: RecordJson
    curve: list[CurvePoint]


def impossible_count(data: object) -> dict[str, Any] | None:
    """A count of more than all anywhere in the data, or None."""
    for count in _counts(data):
        k, n = count["k"], count["n"]
        if not (type(k) is int and type(n) is int and 0 <= k <= n):  # a bool is an int to isinstance
            return count
    return None


def _counts(data: object) -> Iterator[dict[str, Any]]:
    """Everything of the form {k, n}; thousands of records are read at a time, so numbers are not visited."""
    waiting = [data]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if len(node) == 2 and "k" in node and "n" in node:
                yield node
            else:
                waiting += [value for value in node.values() if type(value) in (dict, list)]
        elif isinstance(node, list):
            waiting += [value for value in node if type(value) in (dict, list)]
