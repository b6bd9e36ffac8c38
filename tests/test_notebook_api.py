"""`import pitfalls` is quick, and has all names of its documentation."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

import pitfalls

LAPTOP = Path(__file__).resolve().parents[1] / "results" / "laptop"

HEAVY = {"torch", "transformers", "hydra", "omegaconf", "pandas", "numpy", "matplotlib", "networkx", "rich", "msgspec"}


def test_import_is_light():
    """Guards against a convenience import that costs every script and every notebook two seconds."""
    code = "import sys, pitfalls; dir(pitfalls); print(*{name.split('.')[0] for name in sys.modules})"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert HEAVY & set(printed.split()) == set()


def test_looking_at_records_and_plots_needs_no_torch():
    """Guards against a notebook about kept records that waits for torch."""
    code = "import sys, pitfalls; pitfalls.records, pitfalls.kept, pitfalls.plot_curves; print(*sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert {"torch", "transformers", "hydra"} & set(printed.split()) == set()


@pytest.mark.parametrize("name", pitfalls.__all__)
def test_every_name_is_found_and_documented(name: str):
    """Guards against a name that is promised and not there, because its module was moved."""
    assert getattr(pitfalls, name).__doc__
    assert name in dir(pitfalls)


def test_types_are_those_of_the_names():
    """Guards against types for editors that differ from the existing names."""
    tree = ast.parse(Path(pitfalls.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.name: node.module for node in block.body for alias in node.names}
    assert typed == pitfalls._MODULE_OF
    assert sorted(typed) == sorted(pitfalls.__all__)


def test_an_unknown_name_is_an_attribute_error():
    """Guards against an error of `from pitfalls import metrics`, which looks for an attribute before it imports the submodule."""
    with pytest.raises(AttributeError, match="no attribute 'anwser'"):
        _ = pitfalls.anwser
    from pitfalls import metrics

    assert metrics.__name__ == "pitfalls.metrics"


PLOTS = ("plot_curves", "plot_positions", "plot_entropy")


@pytest.mark.parametrize("name", PLOTS)
def test_runs_that_cannot_share_axes_are_refused_in_one_line(name: str):
    """Guards against errors of zip, hash and next from within a plot: for several graphs, a list of runs, and no runs."""
    runs = pitfalls.kept(LAPTOP)
    by_objective = pitfalls.grouped(runs, lambda run: run.objective)
    mistakes = {
        r"runs on 4 graphs, G\(2,3\), N=20 and G\(2,5\), N=20 and .*: take one graph, for example \[run for run in": by_objective,
        r"seeds is a list: give a mapping .* for example pitfalls\.grouped\(runs, lambda run: run\.objective\)": runs,
        "seeds is empty: give a mapping": {},
        r"seeds\['a'\] is not a list of runs": {"a": runs[0]},
        r"seeds\['b'\] is not a list of runs": {"b": []},
    }
    for message, seeds in mistakes.items():
        with pytest.raises(pitfalls.PitfallsError, match=f"^{message}") as caught:
            getattr(pitfalls, name)(Figure().subplots(), seeds)
        assert "\n" not in str(caught.value)


def test_one_run_over_training_is_one_run():
    """Guards against the AttributeError of a list."""
    with pytest.raises(pitfalls.PitfallsError, match="run is a list: give one run"):
        pitfalls.plot_positions_over_training(Figure().subplots(), pitfalls.kept(LAPTOP))


@pytest.mark.parametrize("name", PLOTS)
def test_all_methods_on_one_graph_can_be_drawn(name: str):
    """Guards against an entropy plot that has an empty bar, or an error, for a method without entropies."""
    runs = [run for run in pitfalls.kept(LAPTOP) if run.graph_label == "G(2,3), N=20"]
    axes = Figure().subplots()
    getattr(pitfalls, name)(axes, pitfalls.grouped(runs, lambda run: run.objective))
    assert len(axes.containers) == {"plot_curves": 0, "plot_positions": 3, "plot_entropy": 2}[name]


def test_runs_without_entropies_say_so():
    runs = [run for run in pitfalls.kept(LAPTOP) if run.objective == "first_hop"]
    with pytest.raises(pitfalls.PitfallsError, match="first hop: these runs have no entropies"):
        pitfalls.plot_entropy(Figure().subplots(), {"first hop": runs})
