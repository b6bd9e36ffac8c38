"""Every file of conf/ that the tables, the claims and the lab read, with one mistake at a time: each is one clear line."""

import copy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pitfalls.claims.ledger import read_claims
from pitfalls.experiment import run_sets
from pitfalls.experiment.config import CONF
from pitfalls.language.beliefs import read_beliefs
from pitfalls.language.lab_settings import read_lab_plan
from pitfalls.report.published import read_papers
from pitfalls.results import entries
from pitfalls.results.plans import read_plans
from pitfalls.schemas import ConfigError


def _lab_plan(path: Path) -> Any:
    return read_lab_plan(path.parent, "full")


READERS: dict[str, Callable[[Path], Any]] = {
    "reproduce.yaml": read_plans,
    "claims.yaml": read_claims,
    "published.yaml": read_papers,
    "degeneration/claims.yaml": read_beliefs,
    "degeneration/full.yaml": _lab_plan,
    "degeneration/prompts.yaml": _lab_plan,
    "degeneration/units.yaml": _lab_plan,
}
DROPPED = object()
WRONG: tuple[Any, ...] = (DROPPED, None, True, -1, 1.5, float("nan"), "text", [], {}, [None], {"x": 1}, {1: 2}, [[1]])
"""What each value is replaced by."""
REQUIRED = {
    "reproduce.yaml": ("title", "label", "expect", "over"),
    "claims.yaml": ("headline", "statement", "source", "checks", "sets", "where", "measure", "cells", "seeds"),
    "published.yaml": ("source", "short", "setting", "n_values", "ours", "rows", "degree", "path_length", "numbers"),
    "degeneration/claims.yaml": ("statement", "measured", "measure", "at_least", "at_most"),
    "degeneration/prompts.yaml": ("name", "style", "text"),
    "degeneration/units.yaml": ("before", "sentences", "words"),
}
"""Keys that no entry may lack, wherever they stand."""
NO_MAPPING = ("numbers", "ours", "expect", "over", "given")
"""Mappings of names that the files' authors choose: their keys are no keys of ours."""


def places(data: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value of a file."""
    pairs = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in pairs:
        yield (*at, key)
        yield from places(value, (*at, key))


def shrunk(data: Any) -> Any:
    """Return the data with one entry of each shape: entries with the same keys are alike, so the first one stands for all."""
    if not isinstance(data, dict | list):
        return data
    pairs = list(data.items() if isinstance(data, dict) else enumerate(data))
    first = {tuple(value) if isinstance(value, dict) else (key,): key for key, value in reversed(pairs)}
    kept = {key: shrunk(value) for key, value in pairs if key in first.values()}
    return kept if isinstance(data, dict) else list(kept.values())


def some_places(data: Any) -> list[tuple[Any, ...]]:
    """Return one place of each kind. The elements of a list are alike, so one of them stands for all."""
    kinds = {}
    for at in places(data):
        kinds.setdefault(tuple("*" if isinstance(key, int) else key for key in at), at)
    return list(kinds.values())


def changed(data: Any, at: tuple[Any, ...], value: Any) -> Any:
    """Return the data with another value at a place, or without it."""
    data = copy.deepcopy(data)
    parent = data
    for key in at[:-1]:
        parent = parent[key]
    if value is DROPPED:
        del parent[at[-1]]
    else:
        parent[at[-1]] = value
    return data


def refusal(read: Callable[[Path], Any], path: Path) -> str | None:
    """Return the line with which a reader refuses a file, or None."""
    try:
        read(path)
    except ConfigError as error:
        return str(error)
    return None


class FastLoader(yaml.cyaml.CParser, entries._Loader):
    """The loader of the readers with the parser of libyaml. Files of users are not read so: their depth would crash it."""

    def __init__(self, stream: str) -> None:
        yaml.cyaml.CParser.__init__(self, stream)
        yaml.constructor.SafeConstructor.__init__(self)
        yaml.resolver.Resolver.__init__(self)


@pytest.fixture(scope="module")
def conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of conf/."""
    return Path(shutil.copytree(CONF, tmp_path_factory.mktemp("mutations") / "conf"))


@pytest.mark.parametrize("name", READERS)
def test_a_mistake_in_a_file_is_one_line_or_none(conf: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    """Guards against a KeyError for a set without a label, and every sibling of it.

    A file with one change is read, or refused with one line that names the file. A wrong type, and a required key that is
    missing, are always refused.
    """
    monkeypatch.setattr(entries, "_Loader", FastLoader)
    original = (CONF / name).read_text()
    data, path = yaml.safe_load(original), conf / name
    data = data if READERS[name] is _lab_plan else shrunk(data)  # a lab needs all its prompts
    refused = 0
    try:
        for at in some_places(data):
            for value in WRONG:
                path.write_text(yaml.dump(changed(data, at, value), Dumper=yaml.CSafeDumper))
                line = refusal(READERS[name], path)
                if line is not None:
                    refused += 1
                    assert "\n" not in line, (at, value)
                    assert any(f"{file}: " in line for file in (path.name, "full.yaml")), (at, value, line)
                else:
                    is_key = isinstance(at[-1], str) and not (len(at) > 1 and at[-2] in NO_MAPPING)
                    assert not (is_key and value is DROPPED and at[-1] in REQUIRED.get(name, ())), at
                    assert value is not True, at
                    assert not isinstance(value, dict) or not value or at[-1] == "numbers", (at, value)
                    assert value != [None], at
    finally:
        path.write_text(original)
    assert refused > 20


def test_a_wrong_cell_is_named_by_its_set_when_its_preset_is_composed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards against a line about a key or a preset without the place in reproduce.yaml where it stands."""
    conf = Path(shutil.copytree(CONF, tmp_path / "conf"))
    monkeypatch.setattr(run_sets, "CONF", conf)
    path = conf / "reproduce.yaml"
    for cell, words in (
        ("mine: {label: l, expect: {}}", "reproduce.yaml: s: mine: .*mine"),
        (
            "mine: {experiment: laptop/reversed, overrides: [trainin.lr=1], label: l, expect: {}}",
            "reproduce.yaml: s: mine: .*trainin",
        ),
        ("mine: {experiment: laptop/reversed, overrides: [text], label: l, expect: {}}", "reproduce.yaml: s: mine: text"),
    ):
        path.write_text(f"s: {{title: t, seeds: [0], cells: {{{cell}}}}}")
        with pytest.raises(ConfigError, match=f"^{words}") as caught:
            run_sets.plan_runs(run_sets.load_plan("s"), tmp_path / "runs", tmp_path / "results")
        assert "\n" not in str(caught.value)
