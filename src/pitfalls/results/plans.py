"""The named sets of runs of ``conf/reproduce.yaml``: what each cell trains, on which seeds, and what it must show."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CELL_KEYS = {"label", "expect", "experiment", "overrides", "seeds", "parameters"}
GRID_KEYS = CELL_KEYS | {"name", "over"}
SET_KEYS = {"title", "seeds", "cells", "grid", "gpu_tflops"}


@dataclass(frozen=True)
class Cell:
    """One cell of a set: a preset with changes, what to call it, and the bounds that every seed has to keep."""

    name: str
    """Of its record files."""
    experiment: str
    overrides: tuple[str, ...]
    label: str
    expect: Mapping[str, tuple[float, float]]
    seeds: tuple[int, ...]
    parameters: int | None = None
    """Of a model that cannot be built to count them."""


@dataclass(frozen=True)
class Plan:
    """A named set of runs."""

    name: str
    title: str
    cells: tuple[Cell, ...]
    gpu_tflops: float | None = None
    """The throughput that GPU-hours are estimated for; an assumption."""


def read_plan(path: Path, name: str) -> Plan:
    """One set of ``conf/reproduce.yaml``.

    Raises:
        ValueError: there is no such set; the message lists those that exist.
    """
    plans = yaml.safe_load(path.read_text())
    if name not in plans:
        raise ValueError(f"{name}: no such set of runs; {path.name} has {', '.join(plans)}")
    plan = plans[name]
    _check_keys(name, plan, SET_KEYS)
    cells = dict(plan.get("cells", {}))
    for entry in plan.get("grid", ()):
        cells |= _expand(name, entry)
    return Plan(
        name, plan["title"], tuple(_cell(key, cell, plan["seeds"]) for key, cell in cells.items()), plan.get("gpu_tflops")
    )


def _check_keys(where: str, data: Mapping[str, Any], known: set[str]) -> None:
    if unknown := sorted(set(data) - known):
        raise ValueError(f"{where}: {unknown[0]}: no such key; there are {', '.join(sorted(known))}")


def _expand(name: str, entry: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The cells of a grid, by name: every combination of ``over``, as further overrides."""
    _check_keys(f"{name}: grid", entry, GRID_KEYS)
    shared = {key: value for key, value in entry.items() if key in CELL_KEYS}
    cells = {}
    for values in itertools.product(*entry["over"].values()):
        chosen = dict(zip(entry["over"], values, strict=True))
        overrides = [*(f"{group}={value}" for group, value in chosen.items()), *entry.get("overrides", ())]
        label = entry["label"].format(**{group: value.replace("_", " ") for group, value in chosen.items()})
        key = "_".join((*([entry["name"]] if "name" in entry else []), *values))
        cells[key] = shared | {"overrides": overrides, "label": label}
    return cells


def _cell(key: str, data: Mapping[str, Any], seeds: Sequence[int]) -> Cell:
    """One cell of the file; a key that is not ours is a mistake."""
    _check_keys(key, data, CELL_KEYS)
    return Cell(
        name=key.split("/")[-1],
        experiment=data.get("experiment", key),
        overrides=tuple(data.get("overrides", ())),
        label=data["label"],
        expect={metric: (low, high) for metric, (low, high) in data["expect"].items()},
        seeds=tuple(data.get("seeds", seeds)),
        parameters=data.get("parameters"),
    )
