"""The types of the files that ``scripts/benchmark.py`` writes. ``benchmarks/`` and the tables of this folder share them.

Unknown fields are refused. `pitfalls.runs.files` reads and writes these files.
"""

from typing import Annotated, TypeVar

from msgspec import Meta, Struct

from pitfalls.runs.counts import Natural, Positive, Text
from pitfalls.runs.records import Hardware

Amount = Annotated[float, Meta(ge=0)]
Rate = Annotated[float, Meta(gt=0)]
T = TypeVar("T")
Some = Annotated[list[T], Meta(min_length=1)]
"""A list with at least one entry."""


class Environment(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The code and the machine behind a measurement."""

    commit: Text | None
    """Commit of the code, or None outside of a git checkout."""
    dirty: bool | None
    """Whether tracked files differed from the commit."""
    versions: dict[str, Text]
    """Version of each library, by its name."""
    hardware: Hardware

    @property
    def machine(self) -> str:
        """The CPU and its number of cores, in words."""
        return self.hardware.machine


# ------------------------------------------------------------------ speed


class MeasuredLine(Struct, frozen=True, forbid_unknown_fields=True):
    """All values of one measured quantity."""

    unit: Text
    rounds: Some[Some[float]]
    """The values of each round."""
    peak_mb: Amount | None
    """Peak memory in MB above that before the measurement, or None if another process did the work."""


class FlopPerSample(Struct, frozen=True, forbid_unknown_fields=True):
    """FLOP of one training sample, forward and backward."""

    nominal: Rate
    """6 x parameters x all tokens of a sequence, prompt included."""
    counted: Rate
    """FLOP of the matrix products that are really computed."""


class StepProfile(Struct, frozen=True, forbid_unknown_fields=True):
    """The time of one training step, split into its parts."""

    step_s: Rate
    """Seconds of the whole step."""
    parts: dict[str, tuple[float, float]]
    """Seconds of each part, forward and backward."""
    casts_s: Amount
    """Seconds spent on copies into another precision. They are included in the parts."""


class Speed(Environment, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The content of ``results/benchmark/MACHINE/measured.json``."""

    batch_size: Positive
    device: Text
    """``cpu`` or the name of the GPU."""
    n_threads: Positive
    precision: Text
    """Precision of training: ``bf16`` or ``fp32``."""
    load: Amount
    """Load average of the machine at the end."""
    flop_per_sample: dict[str, FlopPerSample]
    """FLOP per sample, by model."""
    lines: dict[str, MeasuredLine]
    """Measured quantities by name, such as ``train/gpt_tiny``."""
    profiles: dict[str, Some[StepProfile]]
    """Profiles of a training step by model, one for each repetition. All of a model have the same parts."""
    skipped: dict[str, Text] = {}
    """Why a quantity was not measured, by its name."""

    def __post_init__(self) -> None:
        for model, profiles in self.profiles.items():
            if any(profile.parts.keys() != profiles[0].parts.keys() for profile in profiles):
                raise ValueError(f"profiles.{model}: its profiles have different parts")


# ------------------------------------------------------------------ objectives


class StepTimes(Environment, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The content of ``results/objectives/step_times.json``."""

    relative: dict[str, Rate]
    """Time per step divided by that of next token on the same graph, by ``<objective> <graph>, <N>``."""
    rounds: Positive
    load: Amount
    """Load average of the machine at the end."""


# ------------------------------------------------------------------ scaling


class ScalingPoint(Struct, frozen=True, forbid_unknown_fields=True):
    """A training step at one value of an axis. Everything else is as in ``Scaling.base``."""

    axis: Text
    value: Positive
    tokens: Positive
    """Tokens of one sequence."""
    step_s: Rate
    """Median seconds per step."""
    lowest_s: Rate
    highest_s: Rate
    peak_mb: Amount
    """Peak memory in MB above that before the measurement. For ``Scaling.largest`` it is the peak of the whole process."""


class AttentionTime(Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds of forward and backward in the attention and in the MLPs of the same blocks."""

    path_length: Positive
    tokens: Positive
    """Tokens of one sequence."""
    attention_s: Rate
    mlp_s: Rate


class Scaling(Environment, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The content of ``results/scaling/measured.json``."""

    base: list[Text]
    """Overrides of the config that all points share."""
    precision: Text
    points: Some[ScalingPoint]
    largest: ScalingPoint
    """The longest G(2,l) that trains in the memory limit, one sample at a time."""
    attention: Some[AttentionTime]
    rounds: Positive
    load: Amount
    """Load average of the machine at the end."""


# ------------------------------------------------------------------ roofline


class Gpu(Struct, frozen=True, forbid_unknown_fields=True):
    """The figures of a GPU's data sheet."""

    name: Text
    flop_per_s: Rate
    """Peak rate of dense bf16 matrix products."""
    bytes_per_s: Rate
    """Bandwidth of its memory."""
    launch_s: Amount
    """Seconds between two kernels that Python launches one by one. No data sheet has it: it is an assumption."""


class StepEstimate(Struct, frozen=True, forbid_unknown_fields=True):
    """The estimated speed of a training step."""

    samples_per_s: Rate
    mfu: Rate
    """Nominal FLOP (6 x parameters x all tokens) per second, as a share of the peak."""
    compute_bound: Amount
    """Share of the time in operations whose limit is arithmetic."""


class RooflineRow(Struct, frozen=True, forbid_unknown_fields=True):
    """One model on one graph."""

    model: Text
    graph: Annotated[str, Meta(pattern=r"^g\d+_\d+\Z")]
    """Name of the graph's preset: ``g2_5`` is G(2,5)."""
    batch_size: Positive
    n_operations: Positive
    """Number of operations that torch runs in one step."""
    launched: StepEstimate
    """Estimate if Python launches every operation."""
    graphed: StepEstimate
    """Estimate if the step is one CUDA graph, without launches from Python."""
    run_samples: Natural
    """Training samples of the whole run."""


class Roofline(Struct, frozen=True, forbid_unknown_fields=True):
    """The content of ``results/roofline/estimated.json``."""

    gpu: Gpu
    rows: Some[RooflineRow]
