"""docs/add_an_objective.md is followed word by word: its files are created, and its commands are run."""

import ast
import doctest
import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pitfalls.evaluation.decoding import PROCEDURES, decode
from pitfalls.objectives.next_token import NextToken
from pitfalls.seeding import generator

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "add_an_objective.md").read_text()


def block(language: str) -> str:
    """Return the first block of the page in a language."""
    return re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[1]


def commands() -> list[list[str]]:
    """Return the commands of the page, for this interpreter."""
    lines = [line for text in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in text.splitlines()]
    return [line.split(" > ")[0].replace(".venv/bin/python", sys.executable).split() for line in lines]


def run(command: list[str], tree: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def add_to_the_bench(plans: Path) -> None:
    """Add the objective to the list that the page names. The other grids of the set go: each of their cells takes time."""
    text = plans.read_text()
    assert "objective: &all\n" in text
    sets = yaml.safe_load(text.replace("objective: &all\n", "objective: &all\n          - second_token\n", 1))
    first = sets["objectives"]["grid"][0]
    first["over"]["objective"] = first["over"]["objective"][:3]
    sets["objectives"]["grid"] = [first]
    plans.write_text(yaml.safe_dump(sets, sort_keys=False))


def test_the_method_is_short_and_complete():
    code = block("python")
    assert len(code.splitlines()) < 40
    compile(code, "second_token.py", "exec")
    paths = re.findall(r"`((?:src|conf)/[^`]+)`", PAGE)
    assert paths[:2] == ["src/pitfalls/objectives/second_token.py", "conf/objective/second_token.yaml"]


def test_the_worked_example_is_what_the_code_says():
    """Guards against token ids, lengths and layouts on the page that are no longer those of the task."""
    (example,) = re.findall(r"```pycon\n(.*?)```", PAGE, re.DOTALL)
    test = doctest.DocTestParser().get_doctest(example, {}, "the page", None, 0)
    assert len(test.examples) == 8
    said = io.StringIO()
    result = doctest.DocTestRunner().run(test, out=said.write)
    assert result.failed == 0, said.getvalue()


def declared(tree: ast.Module) -> dict[str, str]:
    """Return every field and function of a module: its name, with that of its class, and its text without a body."""
    found = {}
    for owner in (tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))):
        prefix = f"{owner.name}." if isinstance(owner, ast.ClassDef) else ""
        for node in owner.body:
            if isinstance(node, ast.FunctionDef):
                found[prefix + node.name] = f"({ast.unparse(node.args)}) -> {ast.unparse(node.returns)}"
            elif isinstance(node, ast.AnnAssign | ast.Assign) and prefix:
                name = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
                found[prefix + ast.unparse(name)] = ast.unparse(node)
    return found


def reference() -> dict[str, dict[str, str]]:
    """Return what the page says about each module."""
    text = next(text for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if text.startswith("# pitfalls."))
    parts = re.split(r"^# (pitfalls\.[\w.]+)$", text, flags=re.MULTILINE)[1:]
    return {module: declared(ast.parse(code)) for module, code in zip(parts[::2], parts[1::2], strict=True)}


COMPLETE = ("Batch", "Hidden", "Spec", "Loss", "HorizonConfig", "Objective", "NextToken", "ObjectiveConfig")
"""Classes of which the page shows every field and every method but private ones. Of others it shows some."""


@pytest.mark.parametrize("module", reference())
def test_the_reference_has_the_signatures_of_the_code(module: str):
    """Guards against a reference that gets stale, so that source files have to be read after all."""
    code = declared(ast.parse(Path(importlib.util.find_spec(module).origin).read_text()))
    page = reference()[module]
    assert {name: code.get(name) for name in page} == page
    shown = {name for name in code if name.split(".")[0] in COMPLETE and re.search(r"\.(?!_(?!_init_))", name)}
    of_batches = {"Batch.to", "Batch.rows"}
    ours = {name for name in shown if not name.endswith("__post_init__")} - of_batches
    assert ours - set(page) == set()


def test_every_decoder_is_on_the_page():
    """Guards against a decoder that nobody finds."""
    rows = re.findall(r"^\| (`[a-z_]+`(?:, `[a-z_]+`)*) \| `\w+_logits`", PAGE, re.M)
    assert sorted(re.findall(r"\w+", " ".join(rows))) == sorted(PROCEDURES)


@pytest.fixture
def snippet(make_objective) -> Callable[[str], NextToken]:
    """A function that makes an objective from the code that the page shows of its class."""

    def make(name: str) -> NextToken:
        code = next(text for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if f"class {name}(NextToken)" in text)
        space: dict[str, Any] = {"torch": torch, "NextToken": NextToken}
        exec(code, space)
        objective = make_objective("next_token")
        objective.__class__ = space[name]
        return objective

    return make


def test_the_longer_answer_of_the_page_is_decoded_as_the_path(snippet, make_oracle, batch):
    """Guards against a pattern for longer answers that nobody has run."""
    objective = snippet("GoalFirst")
    objective.check_view(batch)
    oracle = make_oracle(objective, batch)
    assert objective.view(batch).target[:, 0].tolist() == batch.prompt[:, -2].tolist(), "the goal comes first"
    assert torch.equal(decode(oracle, objective, batch.prompt, 4), batch.target)


def test_the_noisy_input_of_the_page_replaces_some_tokens(snippet, trunk, batch):
    """Guards against noise on the labels, and noise that is the same in every step."""
    objective = snippet("NoisyInput")
    gold = batch.target[:, :-1]
    read = [objective.inputs(trunk, batch, step=0, generator=generator(0, "objective", i)) for i in range(20)]
    share = torch.stack([tokens != gold for tokens in read]).float().mean()
    assert 0.2 < share < 0.35
    assert objective.forced_logits(trunk, batch).shape == (*batch.target.shape, 20)
    assert objective.training_loss(trunk, batch, step=0, generator=generator(0, "objective")).total.isfinite()


@pytest.mark.slow
def test_the_page_works_as_written(tmp_path: Path):
    """In a copy of the tree, the contract holds, a run trains, a sweep of tiny runs finishes, and a table has them all."""
    for name in ("src", "conf", "scripts", "tests", "docs", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for path in (*ROOT.glob("*.md"), ROOT / "pyproject.toml", ROOT / "Makefile"):
        shutil.copy(path, tmp_path / path.name)
    (tmp_path / "results").mkdir()  # empty: every cell of the bench is still to be run
    (tmp_path / "src/pitfalls/objectives/second_token.py").write_text(block("python"))
    (tmp_path / "conf/objective/second_token.yaml").write_text(block("yaml"))
    contract, train, sweep, status, collect, bench, numbered, one, report = commands()
    assert contract[-2:] == ["-k", "second_token"]
    tree = "tests/docs/test_pages.py::test_the_tree_of_the_architecture_names_every_file"
    done = run([*contract[:-1], "second_token or the_tree_of_the_architecture", tree], tmp_path)
    assert re.search(r"[1-9]\d passed", done)
    assert "failed" not in done
    assert "test exact_match" in run([*train, "task.test_graphs=200", "training.eval_graphs=50"], tmp_path)
    tiny = [
        "task=g2_3",
        "model=gpt_nano",
        "training.n_steps=4",
        "training.warmup_steps=1",
        "training.eval_graphs=8",
        "task.test_graphs=16",
        "training.n_threads=1",
    ]
    assert "second_token" in " ".join(sweep)
    run([*sweep, *tiny], tmp_path)
    assert "6 runs, 6 finished" in run(status, tmp_path)
    table = run(collect, tmp_path).splitlines()
    assert len([row for row in table if "second_token" in row]) == 1 + 2 * 3
    run([*bench, *tiny[2:], "training.decay_steps=2"], tmp_path)
    add_to_the_bench(tmp_path / "conf" / "reproduce.yaml")
    number = re.search(r"(\d+) │ second_token_g2_5 s0", run(numbered, tmp_path))[1]
    tried = {"NUMBER": number, "--keep": "--smoke"}  # a few steps, which are never kept: the test copies the record itself
    run([tried.get(word, word) for word in one], tmp_path)
    shutil.copytree(tmp_path / "runs" / "results" / "smoke_objectives", tmp_path / "kept" / "objectives")
    assert report == ["make", "report"]  # of this, what the Makefile runs when everything is installed
    run([sys.executable, "scripts/report.py", "--results-dir", "kept", "--keep"], tmp_path)
    assert "| second token |" in (tmp_path / "kept" / "objectives" / "leaderboard.md").read_text()
