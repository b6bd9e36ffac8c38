"""The notebook runs, both after `make reproduce` and with the kept records alone."""

import re
from pathlib import Path

import nbformat
import pytest
from matplotlib.figure import Figure
from nbclient import NotebookClient

import pitfalls
from pitfalls.results.kept import keep
from tests.docs.pages import BLOCK, ROOT
from tests.tiny_runs import TINY

NOTEBOOK = ROOT / "notebooks" / "the_argument.ipynb"
PLACE = 'RUNS = ROOT / "runs"'
MAX_CELLS = 20


def execute(runs_dir: Path) -> str:
    """Run every cell with another folder of runs, and return the output."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    top = notebook.cells[1]
    assert PLACE in top.source
    top.source = top.source.replace(PLACE, f'RUNS = Path("{runs_dir}")')
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 8
    assert [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"] == []
    return "".join(output.text for output in outputs if output.output_type == "stream")


def test_it_is_short_and_has_no_outputs():
    """Guards against pictures in the history of the repository, and a notebook that is too long."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert len(notebook.cells) <= MAX_CELLS
    assert all(cell.outputs == [] and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")


@pytest.mark.filterwarnings("default")
def test_it_runs_after_make_reproduce(tmp_path: Path):
    """Guards against a cell that uses a name the package no longer has. Tiny runs take the place of the real ones."""
    for objective in ("next_token", "reversed"):
        folder = pitfalls.train([*TINY, "task=g2_5", f"objective={objective}"], runs_dir=tmp_path, quiet=True)
        keep(folder, tmp_path / "results" / "laptop" / "records" / f"{objective}-s0.json")
    printed = execute(tmp_path)
    assert "Run(next_token, gpt_nano with 14,912 parameters, G(2,5) on 50 node values, seed 0)" in printed
    assert "Run(reversed," in printed
    assert [path.name for path in (tmp_path / "notebook").iterdir()] == ["exported_0"], "it has trained runs of its own"


def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards against an example with an argument that is gone. A tiny run on G(2,3) takes the place of the page's run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").symlink_to(ROOT / "results")
    folder = pitfalls.train(TINY, quiet=True)
    monkeypatch.setattr(pitfalls, "train", lambda overrides: folder, raising=False)
    text = (ROOT / "docs" / "notebook.md").read_text()
    code = "\n".join(block for kind, block in BLOCK.findall(text) if kind == "python")
    space = {"axes": Figure().subplots()}
    exec(compile(code, "docs/notebook.md", "exec"), space)
    assert space["states"].shape == (5, 1, 16, 16)
    assert len(space["table"]) == 1
    assert {name for name in pitfalls.__all__ if f"pitfalls.{name}" not in text} == {"Run", "Answer"}


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_without_runs_it_trains_a_cheat_and_a_control(tmp_path: Path):
    """Guards against two small models that behave otherwise than the text says."""
    printed = execute(tmp_path / "nothing")
    cheat, control = re.findall(r"'right arm': (\d+)", printed)
    assert 30 <= int(cheat) <= 70
    assert int(control) >= 80
