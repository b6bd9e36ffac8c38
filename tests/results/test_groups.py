"""Groups of runs: seeds of one config stand together, and nothing else does."""

import pytest

from pitfalls.results.groups import (
    by_seed,
    config_text,
    grouped,
    median_exact_match,
    median_run,
    n_seeds,
    n_solved,
    samples_text,
    seeds_of_configs,
)
from tests.kept_runs import a_kept


def seeds(groups):
    return [[run.seed for run in group] for group in groups]


def test_groups_keep_the_order_in_which_runs_come():
    runs = [a_kept(seed=2), a_kept(seed=0, objective="reversed"), a_kept(seed=1)]
    assert {name: [run.seed for run in found] for name, found in grouped(runs, lambda run: run.objective).items()} == {
        "next_token": [2, 1],
        "reversed": [0],
    }
    assert list(grouped(runs, lambda run: run.objective)) == ["next_token", "reversed"]
    assert grouped([], lambda run: run.objective) == {}


def test_seeds_of_a_config_stand_together_in_their_order():
    """Guards against seeds told apart by the folder that they were made in."""
    runs = [a_kept(seed=seed, runs_dir=f"somewhere/{seed}") for seed in (2, 0, 1)]
    assert seeds(seeds_of_configs(runs)) == [[0, 1, 2]]


@pytest.mark.parametrize(
    "other",
    [
        {"n_steps": 200},
        {"precision": "bf16"},
        {"objective": "reversed"},
        {"architecture": "mamba2"},
        {"graph": (2, 5, 20)},
        {"train_graphs": 64},
        {"settings": {"weight": 2}},
    ],
)
def test_configs_that_differ_in_more_than_the_seed_are_two(other):
    """Guards against seeds of a long and a short run, or of two recipes, pooled as one config."""
    assert seeds(seeds_of_configs([a_kept(seed=0), a_kept(seed=1, **other), a_kept(seed=1)])) == [[0, 1], [1]]


def test_counts_and_medians():
    runs = [a_kept(949, 0), a_kept(950, 1), a_kept(1000, 1)]
    assert n_solved(runs) == 2, "solved is an exact match of at least 0.95"
    assert n_seeds(runs) == 2
    assert median_exact_match(runs) == 0.95
    assert n_solved([a_kept(None, first_hop=500, others=None)]) == 0


def test_the_median_run_is_a_run_that_happened():
    """Guards against a mean of seeds that solve a graph and seeds that do not: a value that no model has."""
    assert median_run([a_kept(k, seed) for seed, k in enumerate((1000, 330, 990))]).exact_match == 0.99
    assert median_run([a_kept(k, seed) for seed, k in enumerate((1000, 330))]).exact_match == 0.33


def test_values_are_shown_seed_by_seed():
    assert by_seed([0.5, None, 1.0]) == "0.500 / - / 1.000"
    assert by_seed([0.695], 2) == "0.69"
    assert by_seed([]) == ""


@pytest.mark.parametrize(
    ("samples", "text"),
    [((1600,), "1.6 k"), ((10_000, 10_000), "10 k"), ((218_000, 250_400), "218 to 250 k")],
)
def test_samples_in_thousands(samples, text):
    assert samples_text([a_kept(samples=n) for n in samples]) == text


def test_a_config_in_words():
    assert config_text([a_kept(train_graphs=3000)]) == "next token, gpt_tiny, G(2,5) N=50, 3,000 graphs, 10 k samples, fp32"
