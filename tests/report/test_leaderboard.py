"""The leaderboard of objectives: what it shows is what the records hold, and orderings are compared pair by pair."""

from dataclasses import replace

import pytest
import yaml

from pitfalls.plans import CellPlan
from pitfalls.report import leaderboard, solved
from pitfalls.results import Result


def count(k: int, n: int = 1000) -> dict[str, int]:
    return {"k": k, "n": n}


def run(
    objective: str, exact: int, seed: int = 0, *, graph: tuple[int, int, int] = (2, 5, 20), flops: float = 1e9,
    curve: tuple[int, ...] = (), overrides: tuple[str, ...] = (), broken: int = 100,
) -> Result:  # fmt: skip
    """A run that ended with ``exact`` of 1,000; its curve has a point every 1,000 samples."""
    config = {"seed": seed, "objective": {"name": objective}, "training": {"precision": "fp32"},
              "task": dict(zip(("degree", "path_length", "n_values"), graph, strict=True))}  # fmt: skip
    record = {
        "seed": seed, "config": config, "samples_seen": 1000 * len(curve), "horizon": 5, "n_objective_parameters": 1234,
        "cost": {"flops": flops, "trunk_tokens": 31.0},
        "evaluation": {"test": {"exact_match": count(exact), "broken_walk": count(broken)}},
        "probes": {"arm_following": {"follows": count(970)}},
    }  # fmt: skip
    points = [{"samples": 1000 * i, "split": "test", "evaluation": {"exact_match": count(k)}} for i, k in enumerate(curve)]
    cell = CellPlan(f"{objective}_{graph}{''.join(overrides)}", "objectives", overrides, objective.replace("_", " "), {}, (0, 1))
    return Result(record, tuple(points), cell)


NEXT_TOKEN = run("next_token", 500, curve=(0, 400, 500))
TOKEN_ORDER = [
    run("token_order", 990, curve=(0, 500, 960, 990), flops=1.1e9), run("token_order", 600, 1, curve=(0, 600), flops=1.1e9)
]  # fmt: skip
BELIEF = run("belief_state", 1000, curve=(0, 949, 950, 1000), flops=2e9)


def test_a_row_has_every_seed_and_costs_beside_next_token():
    table = leaderboard.leaderboard([NEXT_TOKEN, *TOKEN_ORDER], {"token_order G(2,5), 20": 1.234})
    assert table.rows[0] == (
        "G(2,5), 20", "token order", "5", "0.990 / 0.600", "1 of 2", "2 / -", "2.2 / -", "1,234", "1.10", "1.23",
        "0.970 / 0.970", "0.100 / 0.100",
    )  # fmt: skip
    assert table.rows[1][1:7] == ("next token", "5", "0.500", "0 of 1", "-", "-")
    assert table.rows[1][8:10] == ("1.00", "-")


def test_at_a_glance_tells_a_guess_from_missing_lookups():
    """Guards a seed that is counted twice, a method that is called a cheat before it follows an edge, an empty cell as a 0."""
    other = (3, 5, 20)
    runs = [
        NEXT_TOKEN, run("next_token", 340, graph=other), run("token_order", 990, 0), run("token_order", 500, 1),
        run("token_order", 960, 0), run("teacherless", 3, broken=995), run("masked_input", 700),
    ]  # fmt: skip
    made = solved.at_a_glance(runs)
    assert made.header == ("objective", "G(2,5), N=20", "G(3,5), N=20")
    assert dict((row[0], row[1:]) for row in made.rows) == {
        "token order": ("1 of 2", ""), "next token": ("1/d", "1/d"), "teacherless": ("no lookups", ""),
        "masked input": ("0.70", ""),
    }  # fmt: skip
    assert made.rows[0][0] == "token order"


def test_a_seed_counts_once_however_often_it_was_trained():
    """Seed 0 in a run that fails and in a longer one that does not; seed 1 in two that do; seed 2 in none."""
    runs = [
        run("token_order", 500, 0, curve=(0,) * 3), run("token_order", 960, 0, curve=(0,) * 9),
        run("token_order", 970, 1, curve=(0,) * 8), run("token_order", 950, 1, curve=(0,) * 4), run("token_order", 949, 2),
        NEXT_TOKEN,
    ]  # fmt: skip
    rows = solved.solved(runs).rows
    assert rows == (("G(2,5), 20", "token order", "2 of 3", "seed 0: 9, seed 1: 4"),)


def test_runs_of_one_objective_with_other_parameters_are_not_counted_as_seeds_of_it():
    blind, seeing = run("sequential", 990, 0, curve=(0,) * 4), run("sequential", 500, 1, curve=(0,) * 9)
    blind.config["objective"]["sees"], seeing.config["objective"]["sees"] = "answer", "prompt"
    rows = solved.solved([blind, seeing, NEXT_TOKEN]).rows
    assert rows == (("G(2,5), 20", "sequential (sees: answer)", "1 of 1", "seed 0: 4"),)


def test_a_step_time_is_that_of_the_preset():
    blind = run("token_order", 990)
    blind = replace(blind, cell=replace(blind.cell, overrides=("objective.weight=2",)))
    assert leaderboard.leaderboard([blind], {"token_order G(2,5), 20": 1.234}).rows[0][9] == "-"


def test_a_mix_of_precisions_is_said():
    other = run("belief_state", 1000)
    other.config["training"]["precision"] = "bf16"
    assert leaderboard.leaderboard([NEXT_TOKEN, *TOKEN_ORDER, other], {}).note.endswith("1 runs in bf16, 3 runs in fp32.")


def test_the_best_of_a_graph_comes_first_then_the_quickest():
    slow = run("multi_token", 1000, curve=(0, 0, 0, 0, 1000))
    other = run("reversed", 1000, graph=(3, 5, 20), curve=(0, 1000))
    rows = leaderboard.leaderboard([other, slow, NEXT_TOKEN, BELIEF], {}).rows
    assert [row[1] for row in rows] == ["belief state", "multi token", "next token", "reversed"]
    assert [row[8] for row in rows] == ["2.00", "1.00", "1.00", "-"], "no next token on the last graph to compare with"


@pytest.mark.parametrize(("curve", "samples"), [((0, 949), None), ((0, 950, 3), 1000), ((1000,), 0), ((), None)])
def test_solved_from_the_first_evaluation_on_that_says_so(curve, samples):
    assert leaderboard.samples_to_solve(run("next_token", 0, curve=curve)) == samples


def test_tera_flop_are_samples_times_flop():
    big = run("belief_state", 1000, curve=(0,) * 250 + (1000,), flops=2e8)
    assert leaderboard.leaderboard([big], {}).rows[0][5:7] == ("250", "50.0")


PAPER = {
    "source": "a paper", "ours": {"TOP": "token_order", "BST": "belief_state", "next_token": "next_token", "MTP": "multi_token"},
    "rows": [{"degree": 2, "path_length": 5, "numbers": {"TOP": 40.0, "BST": 100, "next_token": 50.0}},
             {"degree": 7, "path_length": 7, "numbers": {"TOP": 40.0, "BST": 100}}],
}  # fmt: skip


def test_orderings_are_compared_pair_by_pair(tmp_path):
    """BST above both in both; next token above TOP there, below it here; a graph that we have not is left out."""
    path = tmp_path / "published.yaml"
    path.write_text(yaml.safe_dump([PAPER], sort_keys=False))
    top = run("token_order", 800)
    table = leaderboard.agreement(path, [NEXT_TOKEN, top, BELIEF])
    assert table.rows == (("G(2,5)", "a paper", "token_order 0.400 / 0.800, belief_state 1.000 / 1.000, next_token 0.500 / 0.500",
                           "2", "token_order, next_token"),)  # fmt: skip
    close = leaderboard.agreement(path, [NEXT_TOKEN, run("token_order", 540), BELIEF])
    assert close.rows[0][3:] == ("2", "none"), "a difference of 0.04 is no order"
    lost = leaderboard.agreement(path, [NEXT_TOKEN, run("token_order", 100, broken=501), BELIEF]).rows[0]
    assert "token_order 0.400 / 0.100 (undertrained)" in lost[2]
    assert lost[3:] == ("1", "none"), "a method that has not learned its lookups was ordered"
    ours = run("token_order", 950, overrides=("objective.temperature=2",))
    rows = leaderboard.agreement(path, [NEXT_TOKEN, top, ours, BELIEF]).rows
    assert rows == table.rows, "a variant of ours passed for the method"


def test_pairs_that_change_places_between_samples_and_flop():
    """Belief state needs fewer samples and more operations than multi token; next token solves nothing."""
    multi = run("multi_token", 1000, curve=(0, 0, 0, 1000))
    table = leaderboard.by_cost([BELIEF, multi, NEXT_TOKEN])
    assert table.rows == (("G(2,5), 20", "belief state, multi token", "multi token, belief state", "belief state, multi token"),)
    assert leaderboard.by_cost([NEXT_TOKEN]).rows == ()


def test_other_decodings_are_shown_beside_the_method_s_own():
    """A run that was not asked, as older records, has no row."""
    asked = run("random_order", 331)
    asked.record["probes"]["other_decodings"] = {"goal_first": count(999), "blockwise": count(5)}
    asked.record["evaluation"]["test"]["decoder"] = "autoregressive"
    not_asked = run("random_order", 332, 1)
    not_asked.record["probes"]["other_decodings"] = None
    assert leaderboard.decodings([NEXT_TOKEN, asked, not_asked]).rows == (
        ("G(2,5), 20", "random order", "0", "autoregressive 0.331", "goal_first 0.999, blockwise 0.005"),
    )
