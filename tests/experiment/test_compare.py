"""Two runs are compared on graphs that are new to both, pair by pair."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

import pitfalls
from pitfalls.experiment.build import Run, build, make_run_splits
from pitfalls.experiment.compare import Comparison
from pitfalls.experiment.config import resolve
from pitfalls.experiment.evaluate_run import new_graphs
from pitfalls.experiment.hydra_app import compose
from pitfalls.schemas import ConfigError
from tests.tiny_runs import TINY

SMALL = ["task.degree=2", "task.path_length=2", "task.n_values=6", "task.test_graphs=4", "task.train_graphs=24"]
"""G(2,2) on 6 node values has 60 graphs."""


def make_run(*overrides: str) -> Run:
    """An untrained run."""
    run = build(resolve(compose([*TINY, *overrides])))
    run.trunk.eval()
    return run


@pytest.fixture
def scripted(make_cheater: Callable) -> Callable[..., Run]:
    """A function that returns a run whose trunk takes the first arm in the prompt, or the one to the goal."""

    def make(knows_goal: bool, *overrides: str) -> Run:
        run = make_run(*overrides)
        arm = (lambda goal_hop, hops: goal_hop) if knows_goal else (lambda goal_hop, hops: hops[0])
        return replace(run, trunk=make_cheater(run.task, arm))

    return make


def test_a_planner_and_a_cheat(scripted):
    """The planner is right everywhere, the cheat on about half of the graphs, all of which the planner has, too."""
    planner, cheat = scripted(True), scripted(False, "seed=1")
    found = pitfalls.compare(planner, cheat, 400)
    assert (found.only_b, found.neither, found.n_graphs) == (0, 0, 400)
    assert 160 <= found.only_a <= 240
    assert found.exact_match == (1.0, found.both / 400)
    assert found.difference == found.only_a / 400
    assert 0.4 < found.interval[0] < found.difference < found.interval[1] < 0.6
    assert found.p_value == pytest.approx(2 * 0.5**found.only_a)
    turned = pitfalls.compare(cheat, planner, 400)
    assert turned == Comparison(found.both, 0, found.only_a, 0)
    assert turned.difference == -found.difference


def test_counts_are_those_of_the_evaluation_on_the_same_graphs(scripted):
    """Guards against pairs that are joined in another order, and against answers of another decoder."""
    cheat, other = scripted(False), make_run("objective=reversed", "model.weight_init_std=0.5")
    graphs = new_graphs(300, 5, cheat, other)
    found = pitfalls.compare(cheat, other, 300, seed=5)
    assert (found.both + found.only_a, found.both + found.only_b) == (
        cheat.evaluate(graphs).exact_match.k,
        other.evaluate(graphs).exact_match.k,
    )


def test_a_run_against_itself_differs_nowhere(scripted):
    cheat = scripted(False)
    found = pitfalls.compare(cheat, cheat, 100)
    assert (found.only_a, found.only_b, found.difference, found.p_value) == (0, 0, 0.0, 1.0)
    assert found.interval[0] < 0 < found.interval[1]


def test_graphs_are_in_no_training_set_of_either_run(monkeypatch):
    """Guards against test graphs of one run that the other was trained on: runs of two seeds have two splits."""
    runs = [make_run(*SMALL, f"seed={seed}", "objective=next_token") for seed in (0, 1)]
    trained_on = [set(run.task.graph_keys(make_run_splits(run).train.all_rows().prompt).tolist()) for run in runs]
    assert trained_on[0] != trained_on[1]
    asked = []
    monkeypatch.setattr("pitfalls.experiment.compare._right", lambda run, graphs: asked.append(graphs) or graphs.target[:, 0] > 0)
    pitfalls.compare(*runs, 2000)
    assert torch.equal(asked[0].prompt, asked[1].prompt)
    drawn = set(runs[0].task.graph_keys(asked[0].prompt).tolist())
    assert drawn
    assert not drawn & (trained_on[0] | trained_on[1])
    assert drawn & set(runs[0].task.graph_keys(make_run_splits(runs[0]).test.prompt).tolist())


def test_training_sets_with_all_graphs_of_a_task_are_refused():
    """Guards against a thousand rounds of draws that end with advice on the test set."""
    sizes = ["task.degree=1", "task.path_length=2", "task.n_values=4", "task.test_graphs=1", "task.train_graphs=200"]
    runs = [make_run(*sizes[:-1], "task.train_graphs=11", f"seed={seed}", "training.eval_graphs=1") for seed in range(12)]
    with pytest.raises(ConfigError, match=r"G\(1,2\) on n_values=4 has 12 graphs, and 12 are in a training set: too few"):
        new_graphs(10, 0, *runs)


def test_mistakes_are_one_line(scripted, as_for_users):
    run, other = scripted(False), make_run("task.n_values=21")
    first_hop = make_run("objective=first_hop")
    mistakes = {
        r"run_a answers G\(2,3\) with n_values=20 and run_b answers G\(2,3\) with n_values=21: give two runs of one": (
            run,
            other,
        ),
        "run_b: objective=first_hop does not answer whole paths": (run, first_hop),
        "run_a: objective=first_hop does not answer whole paths": (first_hop, run),
        "run_b='runs/x' is a str: give a run, pitfalls.load_run": (run, "runs/x"),
        "n_graphs=0: it must be >= 1": (run, run, 0),
        "n_graphs=1.5: it must be a whole number": (run, run, 1.5),
        "n_graphs=1000000000000: it must be >= 1 and <= 10,000,000": (run, run, 10**12),
    }
    for message, arguments in mistakes.items():
        with pytest.raises(pitfalls.PitfallsError, match=f"^{message}") as caught:
            pitfalls.compare(*arguments)
        assert "\n" not in str(caught.value)
    with pytest.raises(pitfalls.PitfallsError, match="^seed=-1: it must be >= 0"):
        pitfalls.compare(run, run, 10, seed=-1)


def test_a_comparison_can_be_read():
    text = repr(Comparison(40, 30, 5, 25))
    assert re.fullmatch(
        r"Comparison\(100 graphs: both right 40, only a 30, only b 5, neither 25; exact match 0.700 and 0.450, "
        r"difference \+0.250, 95 % interval \[\+0.\d+, \+0.\d+\], p = 2.2e-05\)",
        text,
    )


def test_the_graphs_follow_from_the_seed_and_leave_the_run_as_it_was(scripted):
    """Guards against draws from torch's global generator, and a model that stays in another mode."""
    cheat, other = scripted(False), make_run("seed=3")
    other.trunk.train()
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    first = pitfalls.compare(cheat, other, 200, seed=7)
    assert torch.equal(torch.rand(2), expected)
    assert other.trunk.training
    assert pitfalls.compare(cheat, other, 200, seed=7) == first
    assert pitfalls.compare(cheat, other, 200, seed=8) != first
