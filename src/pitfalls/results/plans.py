"""The named sets of runs of ``conf/reproduce.yaml``: their cells, seeds and expected results.

A cell is a preset with its changes. Its runs differ in the seed alone.
"""

import itertools
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from pitfalls.results.entries import convert_entries, read_yaml
from pitfalls.runs.counts import Positive
from pitfalls.schemas import ConfigError

Seed = Annotated[int, Meta(ge=0, le=2**53)]

METRICS = (
    "exact_match",
    "first_hop",
    "right_arm",
    "wrong_arm",
    "wrong_arm_then_goal",
    "broken_walk",
    "other_positions",
    "train_exact_match",
)
"""Names of the final numbers that a set can state bounds for (`pitfalls.results.kept.Result.metric`)."""


@dataclass(frozen=True)
class Cell:
    """One cell of a set: a preset with changes, its label, and the bounds for every seed."""

    name: str
    """The name of its record files."""
    experiment: str
    overrides: tuple[str, ...]
    label: str
    expect: Mapping[str, tuple[float, float]]
    """Lowest and highest expected value of each metric."""
    seeds: tuple[int, ...]
    parameters: int | None = None
    """Number of parameters of a model that is too large to be built and counted."""


@dataclass(frozen=True)
class Plan:
    """A named set of runs."""

    name: str
    title: str
    cells: tuple[Cell, ...]
    gpu_tflops: float | None = None
    """Assumed throughput in TFLOP/s, from which GPU-hours are estimated."""


class _CellEntry(Struct, forbid_unknown_fields=True, kw_only=True):
    """A cell in the YAML file."""

    label: str
    expect: dict[str, tuple[float, float]]
    experiment: str | None = None
    overrides: tuple[str, ...] = ()
    seeds: tuple[Seed, ...] | None = None
    parameters: Positive | None = None

    def __post_init__(self) -> None:
        for metric, (low, high) in self.expect.items():
            if metric not in METRICS:
                raise ValueError(f"expect {metric}: no such metric; choose one of {', '.join(METRICS)}")
            if not low <= high:
                raise ValueError(f"expect {metric}: [{low:g}, {high:g}] is empty; give the lower bound first")
            if low < 0 or high > 1:
                raise ValueError(f"expect {metric}: [{low:g}, {high:g}] has a bound outside of 0..1; metrics are shares")
        if self.seeds is not None:
            _check_seeds(self.seeds)


class _GridEntry(_CellEntry, forbid_unknown_fields=True, kw_only=True):
    """A grid in the YAML file: one cell for every combination of the values in ``over``."""

    over: dict[str, tuple[str, ...]]
    name: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for group, values in {"over": tuple(self.over), **self.over}.items():
            if not values:
                raise ValueError(f"{group}: empty, so that the grid has no cells")
        for _, field, form, conversion in string.Formatter().parse(self.label):
            if field is not None and field not in self.over:
                raise ValueError(f"label: {{{field}}} is not in over; choose one of {', '.join(self.over)}")
            if form or conversion:
                raise ValueError(f"label: {{{field}}} has a format; write {{{field}}} alone")


class _SetEntry(Struct, forbid_unknown_fields=True, kw_only=True):
    """A set in the YAML file."""

    title: str
    seeds: tuple[Seed, ...]
    cells: dict[str, Any] = {}
    """Cells by name. Each becomes a `_CellEntry`."""
    grid: tuple[_GridEntry, ...] = ()
    gpu_tflops: Annotated[float, Meta(gt=0)] | None = None

    def __post_init__(self) -> None:
        _check_seeds(self.seeds)
        if not self.cells and not self.grid:
            raise ValueError("it has neither cells nor a grid, so it would train nothing")


def _check_seeds(seeds: Sequence[int]) -> None:
    if not seeds:
        raise ValueError("seeds: at least one")
    for seed in seeds:
        if seeds.count(seed) > 1:
            raise ValueError(f"seeds: {seed} stands twice, and both runs would share a record file; name each seed once")


def read_plans(path: Path) -> dict[str, Plan]:
    """Return all sets of a file like ``conf/reproduce.yaml``, by name.

    Raises:
        ConfigError: a key, a metric or bounds are wrong, or two cells of a set would share a record file. The message names the
            place.
    """
    sets = convert_entries(path.name, read_yaml(path), _SetEntry)
    return {name: _plan(path, name, entry) for name, entry in sets.items()}


def read_plan(path: Path, name: str) -> Plan:
    """Return one set of a file.

    Raises:
        ConfigError: there is no such set (the message lists those that exist), or the file is wrong as in `read_plans`.
    """
    plans = read_plans(path)
    if name not in plans:
        raise ConfigError(f"{name}: no such set of runs; {path.name} has {', '.join(plans)}")
    return plans[name]


def _plan(path: Path, name: str, entry: _SetEntry) -> Plan:
    entries = convert_entries(f"{path.name}: {name}", entry.cells, _CellEntry)
    for grid in entry.grid:
        entries |= _expand(grid)  # a later grid may add to a cell of an earlier one
    cells = tuple(_cell(key, cell, entry.seeds) for key, cell in entries.items())
    first: dict[str, str] = {}
    for key, cell in zip(entries, cells, strict=True):
        if cell.name in first:
            raise ConfigError(
                f"{path.name}: {name}: {key} and {first[cell.name]} would share the record files {cell.name}-s*.json; "
                "rename one of them and give its preset as `experiment:`"
            )
        first[cell.name] = key
    return Plan(name, entry.title, cells, entry.gpu_tflops)


def _expand(grid: _GridEntry) -> dict[str, _CellEntry]:
    """Return the cells of a grid by name. Each combination of ``over`` becomes the overrides of one cell."""
    cells = {}
    for values in itertools.product(*grid.over.values()):
        chosen = dict(zip(grid.over, values, strict=True))
        cell = _CellEntry(
            label=grid.label.format(**{group: value.replace("_", " ") for group, value in chosen.items()}),
            expect=grid.expect,
            experiment=grid.experiment,
            overrides=(*(f"{group}={value}" for group, value in chosen.items()), *grid.overrides),
            seeds=grid.seeds,
            parameters=grid.parameters,
        )
        cells["_".join((*([grid.name] if grid.name else []), *values))] = cell
    return cells


def _cell(key: str, entry: _CellEntry, seeds: Sequence[int]) -> Cell:
    return Cell(
        name=key.split("/")[-1],
        experiment=entry.experiment or key,
        overrides=entry.overrides,
        label=entry.label,
        expect=entry.expect,
        seeds=tuple(seeds if entry.seeds is None else entry.seeds),
        parameters=entry.parameters,
    )
