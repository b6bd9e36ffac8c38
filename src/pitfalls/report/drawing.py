"""Drawing of figures, several at a time. A figure is drawn only if its records, labels or drawing code changed.

``figures.json`` in a results folder holds a digest for each figure. If the same figure is needed again, its files are copied.
"""

import ast
import hashlib
import inspect
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import matplotlib
from joblib import Parallel, delayed
from matplotlib.figure import Figure

from pitfalls.results import groups, kept, plotting
from pitfalls.results.plotting import save
from pitfalls.runs import counts, probe_records, records
from pitfalls.runs.files import FileError, read_bytes, read_json, write_json

DIGESTS = "figures.json"
SUFFIXES = ("png", "svg")


@dataclass(frozen=True)
class Drawing:
    """One figure that can be drawn."""

    name: str
    """Path of its files in the results folder, without a suffix."""
    draw: Callable[[], Figure | None]
    """A function that returns the figure, or None if there is nothing to show."""
    sources: tuple[Path, ...]
    """Files that it is drawn from."""
    modules: tuple[ModuleType, ...]
    """Modules that draw it, besides those that all figures share."""
    labels: tuple[str, ...] = ()
    """Text in the figure that comes from other files."""

    def digest(self) -> str:
        """Return sixteen hex digits that change whenever the figure could."""
        found = hashlib.sha256(matplotlib.__version__.encode())
        for module in (counts, probe_records, records, groups, kept, plotting, *self.modules):
            found.update(_code(module).encode())
        for path in self.sources:
            found.update(read_bytes(path))
        found.update("\n".join(self.labels).encode())
        return found.hexdigest()[:16]


def _code(module: ModuleType) -> str:
    """The code of a module without comments and docstrings, which change no figure."""
    tree = ast.parse(inspect.getsource(module))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not _is_docstring(part)] or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(tree)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def draw_all(drawings: Sequence[Drawing], output: Path, reference: Path) -> None:
    """Bring the files of figures up to date. Other figures in the output folder stay as they are.

    Args:
        drawings: the figures.
        output: where their PNG and SVG files go.
        reference: a results folder that may have the same figures already.
    """
    digests = {drawing.name: drawing.digest() for drawing in drawings}
    known = {folder: _digests(folder) for folder in (output, reference)}
    todo = []
    for drawing in drawings:
        if not any(_taken(drawing.name, digests[drawing.name], folder, known[folder], output) for folder in known):
            todo.append(drawing)
    for drawing in todo:
        (output / drawing.name).parent.mkdir(parents=True, exist_ok=True)
    jobs = [(drawing, suffix) for drawing in todo for suffix in SUFFIXES]
    Parallel(n_jobs=-1 if len(jobs) > len(SUFFIXES) else 1)(
        delayed(_draw)(drawing.draw, output / f"{drawing.name}.{suffix}") for drawing, suffix in jobs
    )
    others = {name: digest for name, digest in known[output].items() if (output / f"{name}.{SUFFIXES[0]}").exists()}
    if (now := others | digests) != known[output]:
        write_json(output / DIGESTS, dict(sorted(now.items())))


def _digests(folder: Path) -> dict[str, str]:
    """Return the digests of a folder's figures, or nothing if it has no readable ``figures.json``."""
    try:
        return read_json(folder / DIGESTS, dict[str, str])
    except (OSError, FileError):
        return {}


def _taken(name: str, digest: str, folder: Path, known: dict[str, str], output: Path) -> bool:
    """Return whether a folder has the figure. Its files are copied to the output folder if that is another folder."""
    if known.get(name) != digest:
        return False
    for suffix in SUFFIXES:
        have, wanted = folder / f"{name}.{suffix}", output / f"{name}.{suffix}"
        if have != wanted and have.exists():
            wanted.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(have, wanted)
    return all((folder / f"{name}.{suffix}").exists() for suffix in SUFFIXES)


def _draw(draw: Callable[[], Figure | None], path: Path) -> None:
    if (figure := draw()) is None:
        path.unlink(missing_ok=True)
    else:
        save(figure, path)
