"""The places in the code that raise an error of a user, and the text of each as a regular expression."""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

from pitfalls.experiment.config import ROOT

CALLS = ("parser.error", "made.error", "self.error", "argparse.ArgumentTypeError")
"""Calls beside the classes of `pitfalls.schemas.PitfallsError` whose argument is a message."""
REMEDIES = ("existing_folder", "existing_file")
"""Functions whose second argument is the end of a message."""
READERS = {"official_line.py", "official_format.py", "plans.py", "ledger.py", "lab_settings.py"}
"""Files whose ValueErrors are about a file of the user. Their callers make lines of them."""
ANY = "\0"
"""In a template: text that is known only at run time."""
MIN_LETTERS = 6
"""A template with fewer letters of its own says nothing: it passes on the words of somebody else."""


@dataclass(frozen=True)
class Site:
    """One text of an error, and where it stands."""

    place: str
    template: str

    def __str__(self) -> str:
        return f"{self.place}: {self.template.replace(ANY, '{}')}"

    @property
    def passes_on(self) -> bool:
        """Whether its words are those of another site or of a library."""
        return len(re.findall("[a-z]", self.template)) < MIN_LETTERS

    @property
    def regex(self) -> re.Pattern[str]:
        """The expression that its messages match, wherever they stand in a line."""
        return re.compile(".*".join(map(re.escape, self.template.split(ANY))))


@cache
def sites() -> list[Site]:
    """Return every text of an error in the code that a script runs, each once."""
    files = [path for folder in ("src", "scripts", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]
    trees = {path: ast.parse(path.read_text()) for path in files}
    errors = family(trees.values())
    found = [site for path, tree in trees.items() for site in _sites_of(path, tree, errors)]
    return list(dict.fromkeys(found))


def family(trees: Iterable[ast.Module]) -> set[str]:
    """Return the names of `PitfallsError` and of all classes that are derived from it."""
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    found, before = {"PitfallsError"}, set[str]()
    while found != before:
        before = set(found)
        found |= {node.name for node in classes if before & {ast.unparse(base) for base in node.bases}}
    return found


def _sites_of(path: Path, tree: ast.Module, errors: set[str]) -> Iterator[Site]:
    place = path.relative_to(ROOT).as_posix().removeprefix("src/")
    for node in ast.walk(tree):
        yield from (Site(place, template) for template in _messages(node, path.name, errors))


def _messages(node: ast.AST, file: str, errors: set[str]) -> list[str]:
    """Return the texts of a message if a node of the syntax tree has one."""
    if isinstance(node, ast.Return) and file == "mistakes.py" and isinstance(node.value, ast.JoinedStr):
        return templates(node.value)  # the functions of this file return lines
    if not isinstance(node, ast.Call):
        return []
    called = ast.unparse(node.func)
    if called in REMEDIES:
        return [f"; {remedy}" for remedy in templates(node.args[1])]
    is_error = called in errors or called in CALLS or (called == "ValueError" and file in READERS)
    return templates(node.args[0]) if is_error and len(node.args) == 1 else []


def templates(node: ast.expr) -> list[str]:
    """Return the texts that an expression can have, with ``ANY`` for what is known only at run time."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.IfExp):
        return [*templates(node.body), *templates(node.orelse)]
    if isinstance(node, ast.FormattedValue):
        return templates(node.value) if isinstance(node.value, ast.IfExp) else [ANY]
    if isinstance(node, ast.JoinedStr):
        return ["".join(parts) for parts in product(*map(templates, node.values))]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [left + right for left, right in product(templates(node.left), templates(node.right))]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "lstrip":
        return templates(node.func.value)
    return [ANY]
