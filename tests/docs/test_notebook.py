"""The notebook runs in a fresh clone, shows what its text says, and is stored with its pictures."""

import re
import warnings
from pathlib import Path

import matplotlib
import nbformat
import pytest
from matplotlib import pyplot as plt
from nbclient import NotebookClient

import pitfalls
from pitfalls.experiment.hydra_app import compose
from tests.docs.pages import BLOCK, ROOT
from tests.tiny_runs import TINY

NOTEBOOK = ROOT / "notebooks" / "the_argument.ipynb"
PLACE = 'RUNS = ROOT / "runs"'
FEW_STEPS = "SMALL += ['training.n_steps=2', 'training.warmup_steps=1', 'training.decay_steps=1', 'task.test_graphs=8']"
MAX_CELLS = 20
N_PICTURES = 8
MAX_BYTES = 500_000
ABSOLUTE_PATH = re.compile(r"(?<![\w.<])/(?:[\w.-]+/)+|[A-Z]:\\\\")


def execute(runs_dir: Path, *, briefly: bool = False) -> str:
    """Run every cell with another folder of runs, or briefly: with a few steps and orders. Return all that was printed."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    top = notebook.cells[1]
    assert PLACE in top.source
    top.source = top.source.replace(PLACE, f'RUNS = Path("{runs_dir}")')
    if briefly:
        top.source += "\n" + FEW_STEPS
        for cell in notebook.cells:
            cell.source = cell.source.replace("range(50)", "range(2)")
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    outputs = outputs_of(notebook)
    assert n_pictures(outputs) == N_PICTURES
    assert [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"] == []
    return "".join(output.text for output in outputs if output.output_type == "stream")


def outputs_of(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """Return the outputs of all code cells."""
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def n_pictures(outputs: list[nbformat.NotebookNode]) -> int:
    """Return the number of pictures among outputs."""
    return sum("image/png" in output.get("data", {}) for output in outputs)


def test_it_is_short_and_has_the_pictures_of_its_cells():
    """Guards an argument in pictures without pictures, where it is read without being run, and a file that is slow to load."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert len(notebook.cells) <= MAX_CELLS
    assert NOTEBOOK.stat().st_size < MAX_BYTES
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "execute it: make notebook"
    assert n_pictures(outputs_of(notebook)) == N_PICTURES
    assert all(cell.metadata == {} for cell in code), "times of day are no part of it: use make notebook"


def test_its_outputs_name_no_machine_and_warn_of_nothing():
    """Guards the path of somebody's home, a warning of a library, and a folder of runs that only its author has."""
    for output in outputs_of(nbformat.read(NOTEBOOK, as_version=4)):
        assert output.output_type in ("stream", "display_data", "execute_result")
        assert output.get("name", "stdout") == "stdout"
        texts = [output.get("text", ""), *(text for kind, text in output.get("data", {}).items() if kind.startswith("text/"))]
        for text in texts:
            assert not ABSOLUTE_PATH.search(text), text
            assert "Warning" not in text


@pytest.mark.parametrize("text", ["/home/me/runs", "saved in /tmp/a", "C:\\\\Users"])
def test_an_absolute_path_is_seen(text: str):
    assert ABSOLUTE_PATH.search(text)
    assert not ABSOLUTE_PATH.search("<th>a</th> 5,2|1,6/0,6= ../runs/a results/laptop")


@pytest.mark.filterwarnings("default")
@pytest.mark.slow
def test_every_cell_runs(tmp_path: Path):
    """Guards a cell that asks for what the package no longer offers. The two models are hardly trained."""
    printed = execute(tmp_path, briefly=True)
    assert "Run(next_token, gpt_nano with 103,872 parameters, G(2,4) on 8 node values, seed 0)" in printed
    assert "Run(reversed," in printed
    assert len(list((tmp_path / "notebook").iterdir())) == 2


def test_elsewhere_it_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards a bare StopIteration for a notebook that was copied out of its repository."""
    monkeypatch.chdir(tmp_path)
    source = nbformat.read(NOTEBOOK, as_version=4).cells[1].source
    no_results = pytest.raises(pitfalls.PitfallsError, match="no results/laptop here or above; open the notebook in a clone")
    with matplotlib.rc_context(), warnings.catch_warnings(), no_results:
        exec(compile(source, "cell 2", "exec"), {})


def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards against an example with an argument that is gone. Tiny runs on G(2,3) take the place of the page's runs."""
    monkeypatch.chdir(tmp_path)
    told: list[list[str]] = []
    train = pitfalls.train

    def train_tiny(overrides: list[str]) -> Path:
        told.append(overrides)
        return train([*TINY, *(["objective=teacherless"] if len(told) > 1 else [])], quiet=True)

    monkeypatch.setattr(pitfalls, "train", train_tiny, raising=False)
    text = (ROOT / "docs" / "notebook.md").read_text()
    code = "\n".join(block for kind, block in BLOCK.findall(text) if kind == "python")
    space: dict = {}
    with matplotlib.rc_context({"backend": "agg"}):
        exec(compile(code, "docs/notebook.md", "exec"), space)
        plt.close("all")
    assert [compose(overrides).task.n_values for overrides in told] == [20, 20], "the runs of the page have one task"
    assert space["states"].shape == (5, 1, 16, 16)
    assert len(space["table"]) == 1
    assert (space["pairs"][:, 1:, 0] >= space["pairs"][:, :-1, 0]).all()
    assert space["found"].n_graphs == 10_000
    assert (tmp_path / "my_runs.png").stat().st_size > 10_000
    assert space["tokenizer"].decode(space["tokens"]).split(",") == list(space["answer"].tokens)
    assert {name for name in pitfalls.__all__ if f"pitfalls.{name}" not in text} == {"Run", "Answer", "Comparison"}


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_it_trains_a_cheat_and_a_control(tmp_path: Path):
    """Guards two small models that show something else than the text beside them."""
    printed = execute(tmp_path)
    cheat, control = re.findall(r"'right arm': (\d+)", printed)
    assert 40 <= int(cheat) <= 60
    assert int(control) >= 95
