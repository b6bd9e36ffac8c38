"""Every error that a user can cause: the command, and the one line with which it ends (messages.txt).

A line says the value, the key and the remedy. To add one, write the command and the line into messages.txt. In braces stands
what `tests.scripts.prepared` makes: {run} is a finished run, {file:TEXT} a file with a text, {new} a path where nothing is.
``NAME=VALUE`` in front of a command sets an environment variable, ``without PACKAGE:`` hides one, and a call of ``pitfalls`` is
tried as in a notebook.
"""

import ast
import importlib.metadata
import importlib.util
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from matplotlib.figure import Figure

import pitfalls
from benchmarks import commands
from pitfalls.experiment import hydra_app, run_sets
from pitfalls.experiment.config import ROOT
from pitfalls.models import device_memory, pretrained
from pitfalls.training.trainer import Trainer
from tests.scripts.elsewhere import ELSEWHERE, PASSED_ON
from tests.scripts.prepared import Prepared, SaveLM
from tests.scripts.raise_sites import Site, sites

MIN_QUOTED = 5
"""Fewest letters of the words by which a test covers an error."""
LISTED = Path(__file__).with_name("messages.txt")


class Entry(NamedTuple):
    """A command of messages.txt and the line that it ends with."""

    command: str
    line: str

    @property
    def script(self) -> str:
        """The script that is called, or pitfalls for a call in a notebook."""
        return next(found[0] for found in re.finditer(r"\w+(?=\.py\b)|^pitfalls", self.command))


@cache
def entries() -> list[Entry]:
    lines = [line for line in LISTED.read_text().splitlines() if line and not line.startswith("#")]
    return [Entry(command, line.removeprefix("    ")) for command, line in zip(lines[::2], lines[1::2], strict=True)]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, save_lm: SaveLM) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("prepared"), save_lm)


@pytest.fixture
def end_of(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, as_for_users: None
) -> Iterator[Callable[[str], str]]:
    """A function: a command -> the line that it ends with, on any machine. Nothing may be trained or measured."""
    for module, name in ((hydra_app, "train_run"), (Trainer, "run"), (run_sets, "train"), (commands, "measure")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("it computes"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for module in (device_memory, pretrained):
        monkeypatch.setattr(module, "memory_bytes", lambda device: 64.0 * 2**30)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # train.py sets it, for this process and those that it starts
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(prepared["empty"]))
    monkeypatch.chdir(ROOT)

    def end(command: str) -> str:
        if command.startswith("pitfalls."):
            return shown(prepared, in_a_notebook(prepared, command))
        if found := re.match(r"without (\S+): ", command):
            hide(monkeypatch, found[1])
        words = [filled(prepared, word) for word in shlex.split(command.removeprefix(found[0] if found else ""))]
        while re.fullmatch(r"[A-Z_]+=.*", words[0]):
            monkeypatch.setenv(*words.pop(0).split("=", 1))
        monkeypatch.setattr(sys, "argv", [str(ROOT / "scripts" / words[0]), *words[1:]])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(sys.argv[0], run_name="__main__")
        printed, errors = capsys.readouterr()
        assert printed == ""
        assert ended.value.code in (1, 2)
        assert not prepared["new"].exists(), "it leaves something behind"
        return shown(prepared, errors.removesuffix("\n"))

    yield end
    torch.set_num_threads(1)


def hide(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Let a package seem not to be installed."""
    find_spec, files = importlib.util.find_spec, importlib.metadata.files

    def none(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find_spec(name))
    monkeypatch.setattr(importlib.metadata, "files", lambda name: none(name) if name == package else files(name))


def filled(prepared: Prepared, text: str) -> str:
    """Return a text with paths in place of the names in braces that are prepared."""
    return re.sub(
        r"\{([a-z_0-9]+(?::[^}]*)?)\}", lambda found: str(prepared[found[1]]) if found[1] in prepared else found[0], text
    )


def shown(prepared: Prepared, text: str) -> str:
    """Return a text without what differs between machines: paths, numbers of runs, bytes of checksums."""
    return re.sub(r"(-s\d+-)[0-9a-f]{12}", r"\1ID", prepared.shown(text))


EDGES = [(1, 2), (3, 4), (5, 1), (5, 3)]
"""G(2,3): 5 -> 1 -> 2 and 5 -> 3 -> 4."""


def in_a_notebook(prepared: Prepared, call: str) -> str:
    """Return the class and the text of the error that a call raises."""

    @cache
    def load(name: str) -> pitfalls.Run:
        return pitfalls.load_run(prepared[name])

    names = {"pitfalls": pitfalls, "load": load, "edges": EDGES, "axes": Figure().subplots()}
    if re.search(r"\brun\b|\btokens\b", call):
        names |= {"run": load("run"), "tokens": pitfalls.prompt(load("run"), EDGES, 5, 2)}
    with pytest.raises(pitfalls.PitfallsError) as caught:
        eval(filled(prepared, call), names)
    return f"{type(caught.value).__name__}: {caught.value}"


@pytest.mark.slow
@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.command)
def test_a_mistake_ends_with_its_line(entry: Entry, end_of: Callable[[str], str]) -> None:
    assert end_of(entry.command) == entry.line


@cache
def quoted(path: Path) -> list[str]:
    """Return the texts in a file of tests that messages are compared with: literals without docstrings, as plain text."""
    tree = ast.parse(path.read_text())
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in told]
    return [part.replace("\\", "").strip("^") for text in texts if isinstance(text, str) for part in text.split(".*")]


# ------------------------------------------------------------------ no error is left out


def test_the_list_is_in_order() -> None:
    """Guards against two lists of one script, and against a command that stands twice."""
    scripts = [entry.script for entry in entries()]
    assert scripts == sorted(scripts, key=lambda name: (name == "pitfalls", name))
    assert len({entry.command for entry in entries()}) == len(entries())


def test_every_error_is_listed_or_covered_elsewhere() -> None:
    """Guards against a new message that nobody has read aloud."""
    left_out = [str(site) for site in sites() if not site.passes_on and not is_listed(site) and not elsewhere(site)]
    assert not left_out


def test_the_words_of_others_are_shown() -> None:
    """A text without words of its own is shown by a listed line, which is named here by how it begins."""
    assert {str(site) for site in sites() if site.passes_on} == set(PASSED_ON)
    lines = [entry.line for entry in entries()]
    for beginning in PASSED_ON.values():
        assert any(line.startswith(beginning) for line in lines) or (ROOT / "tests" / beginning).is_file(), beginning


def test_elsewhere_names_no_more_than_it_has_to() -> None:
    """Guards against words that no test quotes, and against an error that is listed by now, or is gone."""
    unlisted = [site for site in sites() if not is_listed(site)]
    for place, covered in ELSEWHERE.items():
        for words, name in covered.items():
            assert len(re.findall("[a-z]", words)) >= MIN_QUOTED, words
            assert any(words in text for text in quoted(ROOT / "tests" / name)), f"{name} does not quote {words!r}"
            assert any(site.place == place and words in site.template for site in unlisted), f"{place} has no {words!r} to cover"


def is_listed(site: Site) -> bool:
    return any(site.regex.search(entry.line) for entry in entries())


def elsewhere(site: Site) -> bool:
    return any(words in site.template for words in ELSEWHERE.get(site.place, {}))
