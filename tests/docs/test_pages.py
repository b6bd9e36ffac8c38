"""The pages are true. The readmes of zoology and mad-lab, for example, name files and commands that do not exist."""

import ast
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from pitfalls.experiment.cli import Parser
from pitfalls.experiment.hydra_app import compose
from pitfalls.models.mamba import COMPILED_KERNELS
from pitfalls.objectives import NAMES
from tests.docs import pages
from tests.docs.pages import PAGES, ROOT, name_of

README = ROOT / "README.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
INDEX = ROOT / "docs" / "objectives" / "README.md"
COMMANDS = {(name_of(page), command) for page in PAGES if page != pages.EXECUTED for command in pages.commands(page)}
CODE = (".py", ".yaml")
NAMED = re.compile(r"\b(?:src|tests|scripts|conf|docs|benchmarks)/[a-z][\w./-]*\.(?:py|yaml|md)\b")
MAX_LINES, MAX_WORDS = 180, 1500
"""Largest number of lines and of words of the README."""
MAX_SENTENCE_WORDS = 30
MAX_COLUMNS, MAX_GENERATED_COLUMNS = 6, 8


# ------------------------------------------------------------------ commands


class Parsed(BaseException):
    """A script has read its command line without an error."""


@pytest.fixture
def check_script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[[str, list[str]], None]:
    """A function that gives a script its command line. The script itself reads it, and then does nothing."""

    def check(script: str, arguments: list[str]) -> None:
        assert (ROOT / script).is_file()
        overrides = [word for word in arguments if re.match(r"\+?[a-z_.]+=", word)]
        check_overrides(overrides, "-m" in arguments)
        if script == "scripts/train.py":  # hydra reads its command line
            return
        monkeypatch.setattr(sys, "argv", [str(ROOT / script), *arguments])
        parse = Parser.parse_args

        def parse_args(parser: Parser, *given: object) -> None:
            parse(parser, *given)
            raise Parsed

        monkeypatch.setattr(Parser, "parse_args", parse_args)
        try:
            with pytest.raises((Parsed, SystemExit)) as ended:
                runpy.run_path(str(ROOT / script), run_name="__main__")
        finally:
            monkeypatch.setattr(Parser, "parse_args", parse)
        said = capsys.readouterr()
        assert isinstance(ended.value, Parsed) or "--help" in arguments, said.err
        if script == "scripts/reproduce.py" and arguments[0] != "--help":
            assert arguments[0] in yaml.safe_load((ROOT / "conf" / "reproduce.yaml").read_text())

    return check


def examples_of_scripts() -> Iterator[tuple[str, str]]:
    """Yield the script and the arguments of every example in the docstring of a script. Two spaces end an example."""
    for path in sorted((ROOT / "scripts").glob("*.py")):
        text = re.sub(r"\\\n\s+", "", ast.get_docstring(ast.parse(path.read_text())) or "")
        for script, arguments in re.findall(r"python (scripts/\w+\.py)((?: [^\s`]+)*)", text):
            if "|" not in arguments:  # benchmark.py: a pattern, no command
                yield script, arguments.partition(" > ")[0]


@pytest.mark.parametrize(("script", "arguments"), sorted(set(examples_of_scripts())))
def test_an_example_of_a_script_is_one_that_it_reads(check_script, script: str, arguments: str):
    """Guards against an example in a docstring without an option that is required."""
    check_script(script, shlex.split(arguments))


def test_a_missing_required_option_is_seen(check_script):
    """Shows that the checks of examples can fail."""
    with pytest.raises(AssertionError, match="--n-values"):
        check_script("scripts/make_data.py", ["--degree", "2", "--path-length", "5", "--graphs", "9", "--output", "x.txt"])
    with pytest.raises(AssertionError, match="not an integer"):
        check_script("scripts/probe.py", ["runs/RUN", "--graphs", "many"])


@pytest.mark.parametrize(("page", "command"), sorted(COMMANDS))
def test_command_is_one_of_the_project(check_script, page: str, command: str):
    """Guards against a page with a script, an option, a preset, a set of runs or a target that is gone, or without an option."""
    words = [word for word in shlex.split(command) if not re.fullmatch(r"[A-Z_]+=\S*", word)]
    program, *rest = words
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert {word for word in rest if "=" not in word} <= set(targets)
    elif words[:3] == [".venv/bin/python", "-m", "pip"]:
        extras = re.findall(r"\[(\w+)\]", command)
        assert all(f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text() for extra in extras)
        assert all((ROOT / words[i + 1]).exists() for i, word in enumerate(words) if word == "-c")
    elif words[:3] == [".venv/bin/python", "-m", "pytest"]:
        assert all((ROOT / word.split("::")[0]).exists() for word in words if word.startswith("tests"))
    elif words[:2] == [".venv/bin/python", "-c"]:
        assert tuple(re.findall(r"\w+_cuda", words[2])) == COMPILED_KERNELS
    elif words[:2] == [".venv/bin/torchrun", "--nproc-per-node"]:
        assert words[3] == "scripts/train.py"
        assert compose(words[4:]).training.accumulation % int(words[2]) == 0
    elif program == ".venv/bin/python":
        check_script(rest[0], rest[1:])
    else:
        assert program in ("git", "eval", "source", ".venv/bin/ruff", ".venv/bin/pre-commit", ".venv/bin/tensorboard")


def check_overrides(overrides: list[str], is_sweep: bool) -> None:
    """Compose every value of a sweep once."""
    told = [
        re.sub(r"source=FOLDER\b", f"source={ROOT}", word).replace("COMMIT", 40 * "a").split("=", 1)
        for word in overrides
        if not word.startswith("hydra/")
    ]
    values = {key: value.split(",") if is_sweep else [value] for key, value in told}
    for i in range(max(map(len, values.values()), default=0)):
        compose([f"{key}={choices[min(i, len(choices) - 1)]}" for key, choices in values.items()])


def test_pages_show_commands():
    """Guards against a pattern that no longer finds them, so that the test above looks at nothing."""
    shown = {page for page, _ in COMMANDS}
    assert len(COMMANDS) > 60
    assert {"README.md", "CONTRIBUTING.md", "docs/running.md", "docs/models.md", "docs/decoding.md", "docs/results.md"} <= shown


# ------------------------------------------------------------------ links and paths


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_of_a_page_lead_to_files(page: Path):
    """Guards against a link to a page that was moved."""
    targets = {target: page.parent / target.split("#")[0] for target in pages.links(page)}
    assert [target for target, path in targets.items() if not path.exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_into_a_page_lead_to_a_heading(page: Path):
    """Guards against a link to a heading that was renamed: a browser then shows the top of the page, and says nothing."""
    told = [target.split("#") for target in pages.links(page) if "#" in target]
    assert [[name, place] for name, place in told if place not in pages.places(page.parent / name if name else page)] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=name_of)
def test_paths_in_code_spans_exist(page: Path):
    """Guards against a page with the old path of a module. The changelog names old paths, and one page those of a new file."""
    spans = re.findall(r"`([\w./-]+/[\w./-]*)`", page.read_text())
    told = [
        span for span in spans if not re.search(r"^runs/|^checkpoint/|^(train|test)/|[A-Z]{3}|second_token|[a-z]-[a-z]", span)
    ]
    folders = (ROOT, ROOT / "src" / "pitfalls")
    assert [span for span in told if not any((folder / span).exists() for folder in folders)] == []


def test_paths_outside_of_pages_exist():
    """Guards against an old path in a comment of the code, the config or the scripts that build and test."""
    files = [
        path for folder in ("src", "scripts", "conf", "benchmarks") for path in (ROOT / folder).rglob("*") if path.suffix in CODE
    ]
    files += [ROOT / ".ci" / "run", ROOT / "Makefile", ROOT / "pyproject.toml"]
    told = {(name_of(path), found) for path in files for found in re.findall(NAMED, path.read_text())}
    assert len(told) > 10
    assert [one for one in sorted(told) if not (ROOT / one[1]).exists()] == []


# ------------------------------------------------------------------ trees


def files_of_the_project() -> Iterator[str]:
    """Return the files that docs/architecture.md must name. A new objective needs no line there (docs/add_an_objective.md)."""
    patterns = ("src/**/*.py", "scripts/*.py", "benchmarks/*.py", "conf/*.yaml", "docs/*.md", "notebooks/*.ipynb")
    for path in (path for pattern in patterns for path in ROOT.glob(pattern)):
        if path.name != "__init__.py" and path.parent.name != "objectives":
            yield name_of(path)
    yield "src/pitfalls/__init__.py"
    yield "src/pitfalls/objectives/base.py"
    yield from (f"{name_of(path)}/" for path in (ROOT / "conf").iterdir() if path.is_dir())


def folders_of_the_project() -> set[str]:
    """Return the top folders and those of the package. Hidden, ignored and generated ones are left out."""
    tops = [path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))]
    packages = [path for path in (ROOT / "src" / "pitfalls").iterdir() if path.is_dir() and any(path.glob("*.py"))]
    found = {f"{name_of(path)}/" for path in (*tops, *packages)} | {"src/pitfalls/", "src/hydra_plugins/"}
    return found - {"src/", "runs/", "build/", "dist/", "data/"}


def test_the_readmes_tree_names_every_folder_and_nothing_else():
    named = pages.tree_paths(README)
    assert sorted(named) == sorted(folders_of_the_project())


def test_the_tree_of_the_architecture_names_every_file():
    """Guards against a tree that omits modules, as nanochat's does."""
    assert set(files_of_the_project()) - set(pages.tree_paths(ARCHITECTURE)) == set()


@pytest.mark.parametrize("path", pages.tree_paths(ARCHITECTURE))
def test_path_of_the_tree_exists(path: str):
    assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file()


def test_the_layers_shown_are_those_that_are_checked():
    """Guards against a list of layers that import-linter no longer checks."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    assert "```text\n" + "\n".join(layers) + "\n```" in ARCHITECTURE.read_text()


def test_the_index_of_objectives_names_its_pages():
    """Guards against a page that nobody finds, and a page of an objective that is gone."""
    named = re.findall(r"^\| \[(\w+)\]\((\w+)\.md\)", INDEX.read_text(), re.M)
    written = sorted(path.stem for path in INDEX.parent.glob("*.md") if path != INDEX)
    assert [name for name, file in named if name != file] == []
    assert sorted(name for name, _ in named) == written
    assert set(written) <= set(NAMES)


# ------------------------------------------------------------------ length and tables


def test_the_readme_is_short():
    text = README.read_text()
    assert len(text.splitlines()) <= MAX_LINES
    assert len(text.split()) <= MAX_WORDS


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_sentence_is_long(page: Path):
    """Guards against long sentences: the old README had 29 words per sentence."""
    long = [sentence for sentence in pages.sentences(page.read_text()) if len(sentence.split()) > MAX_SENTENCE_WORDS]
    assert long == []


def test_sentences_are_found():
    """Guards against a splitter that cuts too much, or drops what it should read."""
    text = "# Title\n\nOne `a b` two [three four](x.md) (Hu et al. 2025). Next.\n\n- item, which\n  goes on\n- item\n\n| a |\n"
    assert pages.sentences(text) == ["One `code` two three four (Hu et al 2025).", "Next.", "item, which goes on", "item"]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_tables_are_narrow(page: Path):
    """Guards against a table that is wider than a screen."""
    wide = [t for t in pages.tables(page) if t.n_columns > (MAX_GENERATED_COLUMNS if t.is_generated else MAX_COLUMNS)]
    assert wide == []


# ------------------------------------------------------------------ generated blocks

SHOWN = [(name_of(page), file, shown) for page in PAGES for file, shown in pages.GENERATED.findall(page.read_text())]


@pytest.mark.parametrize(("page", "file", "shown"), SHOWN)
def test_block_is_the_generated_table(page: str, file: str, shown: str):
    """Guards against a number typed by hand. After `--keep` a folder may hold a user's table, so the committed one counts too."""
    show = ["git", "-C", str(ROOT), "show", f"HEAD:{file}"]
    committed = subprocess.run(show, capture_output=True, text=True, check=False).stdout
    made = [[line for line in text.splitlines() if line.startswith("|")] for text in ((ROOT / file).read_text(), committed)]
    assert shown.strip().splitlines() in made


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_marker_opens_a_block(page: Path):
    """Guards against a marker that no longer fits, so that the test above looks at nothing."""
    text = page.read_text()
    assert text.count("<!-- results/") == text.count("<!-- end -->") == len(pages.GENERATED.findall(text))


def test_the_readme_shows_the_laptops_table():
    assert "results/laptop/table.md" in [file for page, file, _ in SHOWN if page == "README.md"]


# ------------------------------------------------------------------ constraints


def test_the_constraints_for_gpus_differ_in_torch_and_kernels_alone():
    """Guards against two tested sets that drift apart."""
    usual, gpu = (
        {line for line in (ROOT / name).read_text().splitlines() if "==" in line}
        for name in ("constraints.txt", "constraints-cuda.txt")
    )
    assert {line.split("==")[0] for line in usual - gpu} == {"torch"}
    assert {line.split("==")[0] for line in gpu - usual} == {"torch", "mamba-ssm", "causal-conv1d", "einops"}
