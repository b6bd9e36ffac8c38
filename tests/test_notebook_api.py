"""`import pitfalls` is quick, and offers what its documentation says."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pitfalls

HEAVY = {"torch", "transformers", "hydra", "omegaconf", "pandas", "numpy", "matplotlib", "networkx", "rich", "msgspec"}


def test_import_is_light():
    """Guards a convenience import that costs every script and every notebook two seconds."""
    code = "import sys, pitfalls; dir(pitfalls); print(*{name.split('.')[0] for name in sys.modules})"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert HEAVY & set(printed.split()) == set()


def test_looking_at_records_and_plots_needs_no_torch():
    """Guards a notebook about kept records that waits for torch."""
    code = "import sys, pitfalls; pitfalls.records, pitfalls.kept, pitfalls.plot_curves; print(*sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert {"torch", "transformers", "hydra"} & set(printed.split()) == set()


@pytest.mark.parametrize("name", pitfalls.__all__)
def test_every_name_is_found_and_documented(name: str):
    """Guards a name that is promised and not there, because its module was moved."""
    assert getattr(pitfalls, name).__doc__
    assert name in dir(pitfalls)


def test_types_are_those_of_the_names():
    """Guards an editor that knows other names than those that exist."""
    tree = ast.parse(Path(pitfalls.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.name: node.module for node in block.body for alias in node.names}
    assert typed == pitfalls._MODULE_OF
    assert sorted(typed) == sorted(pitfalls.__all__)


def test_an_unknown_name_is_an_attribute_error():
    """Guards `from pitfalls import metrics`, which asks for an attribute before it imports the submodule."""
    with pytest.raises(AttributeError, match="no attribute 'anwser'"):
        _ = pitfalls.anwser
    from pitfalls import metrics

    assert metrics.__name__ == "pitfalls.metrics"
