"""docs/add_an_objective.md is followed word by word: its files are created, and its commands are run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

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


@pytest.mark.slow
def test_the_page_works_as_written(tmp_path: Path):
    """In a copy of the tree, the contract holds, a run trains, a sweep of tiny runs finishes, and a table has them all."""
    for name in ("src", "conf", "scripts", "tests", "docs", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for path in (*ROOT.glob("*.md"), ROOT / "pyproject.toml", ROOT / "Makefile", ROOT / "setup.py"):
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
