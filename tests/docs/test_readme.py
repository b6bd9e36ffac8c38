"""The README's tree and commands are the project's: zoology's and mad-lab's readmes point at files that are not there."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from pitfalls.experiment.hydra_app import compose
from pitfalls.models.kernels import EXTENSIONS

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.S)
COMMANDS = [line.split("  #")[0].strip() for kind, block in BLOCKS if kind == "sh" for line in block.splitlines() if line.strip()]
TREE = next(block for kind, block in BLOCKS if kind == "text" and "src/pitfalls/" in block)


def tree_paths() -> list[str]:
    """Every path that the tree names; an indented name lies below the last less indented folder."""
    paths, folders = [], []
    for line in TREE.splitlines():
        if not line.strip() or "not committed" in line:
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        names = re.split(r"\s{2,}", line.strip())[0].split()
        del folders[depth:]
        paths += ["".join(folders) + name for name in names]
        folders.append(names[0])
    return paths


@pytest.mark.parametrize("path", tree_paths())
def test_path_of_the_tree_exists(path):
    assert (ROOT / path).exists()
    assert (ROOT / path).is_dir() == path.endswith("/")


def test_tree_names_every_module_script_and_config():
    """nanochat's tree omits two modules. A new objective asks for no line (docs/add_an_objective.md): the folder is the list."""
    named = set(tree_paths())
    patterns = ("src/pitfalls/*.py", "src/pitfalls/*/*.py", "src/hydra_plugins/*.py", "scripts/*.py", "conf/*.yaml", "docs/*.md")
    files = [path for pattern in patterns for path in ROOT.glob(pattern)]
    folders = [path for path in (ROOT / "conf").iterdir() if path.is_dir()]
    files = [path for path in files if path.name != "__init__.py" and path.parent.name != "objectives"]
    missing = {str(p.relative_to(ROOT)) for p in files} | {f"{p.relative_to(ROOT)}/" for p in folders}
    assert missing - named == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_the_readme_is_one_of_the_project(command):
    words = [word.replace("FOLDER", str(ROOT)) for word in shlex.split(command) if not re.match(r"[A-Z_]+=", word)]
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert next(w for w in words[1:] if "=" not in w) in targets
    elif words[:3] == [".venv/bin/python", "-m", "pip"]:
        extras = re.findall(r"\[(\w+)\]", command)
        assert all(f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text() for extra in extras)
        assert all((ROOT / words[i + 1]).exists() for i, word in enumerate(words) if word == "-c")
    elif words[:2] == [".venv/bin/python", "-c"]:
        assert tuple(re.findall(r"\w+_cuda", words[2])) == EXTENSIONS
    elif words[:2] == [".venv/bin/torchrun", "--nproc-per-node"]:
        assert words[3] == "scripts/train.py"
        assert compose(words[4:]).training.accumulation % int(words[2]) == 0
    elif words[:1] == [".venv/bin/python"]:
        assert (ROOT / words[1]).exists()
        if words[1] == "scripts/train.py" and "-m" not in words and not any(w.startswith("-") for w in words):
            compose(words[2:])
    else:
        assert words[0] in ("git", "cd", "eval", "source")


def test_readme_shows_commands():
    assert len(COMMANDS) > 8


@pytest.mark.parametrize(("file", "shown"), re.findall(r"<!-- (results/\S+) -->\n(.*?)<!-- end -->", TEXT, re.S))
def test_table_of_the_readme_is_the_generated_one(file: str, shown: str):
    """A number typed by hand. After `make reproduce` the folder holds the user's own table, the README the committed one."""
    show = ["git", "-C", str(ROOT), "show", f"HEAD:{file}"]
    committed = subprocess.run(show, capture_output=True, text=True, check=False).stdout
    tables = [[line for line in text.splitlines() if line.startswith("|")] for text in ((ROOT / file).read_text(), committed)]
    assert shown.strip().splitlines() in tables


def test_readme_shows_tables():
    """Guards a marker that no longer fits, so that the test above looks at nothing."""
    assert TEXT.count("<!-- results/") == TEXT.count("<!-- end -->") == 2


def test_the_constraints_for_gpus_differ_in_torch_and_kernels_alone():
    """Guards two tested sets that drift apart."""
    usual, gpu = (
        {line for line in (ROOT / name).read_text().splitlines() if "==" in line}
        for name in ("constraints.txt", "constraints-cuda.txt")
    )
    assert {line.split("==")[0] for line in usual - gpu} == {"torch"}
    assert {line.split("==")[0] for line in gpu - usual} == {"torch", "mamba-ssm", "causal-conv1d", "einops"}
