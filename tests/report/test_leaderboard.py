"""The leaderboard of objectives: what it shows is what the records hold, and orderings are compared pair by pair."""

from dataclasses import replace

import pytest
import yaml

from pitfalls.report import leaderboard, solved
from pitfalls.results.kept import Result
from pitfalls.results.plans import Cell


def count(k: int, n: int = 1000) -> dict[str, int]:
    return {"k": k, "n": n}


def run(
    objective: str,
    exact: int,
    seed: int = 0,
    *,
    graph: tuple[int, int, int] = (2, 5, 20),
    flops: float = 1e9,
    curve: tuple[int, ...] = (),
    overrides: tuple[str, ...] = (),
    others: int = 1000,
    n_steps: int = 100,
) -> Result:
    """A run that ended with ``exact`` of 1,000, ``others`` besides the first hop; its curve has a point every 1,000 samples."""
    training = {"precision": "fp32", "n_steps": n_steps, "batch_size": 100}
    config = {
        "seed": seed,
        "objective": {"name": objective},
        "training": training,
        "task": dict(zip(("degree", "path_length", "n_values"), graph, strict=True)),
    }
    forced = [count(1000), count(exact), count(others), count(1000)]
    record = {
        "seed": seed,
        "config": config,
        "samples_seen": 1000 * len(curve),
        "horizon": 5,
        "n_objective_parameters": 1234,
        "cost": {"flops": flops, "trunk_tokens": flops / 1e9 * 31},
        "evaluation": {"test": {"exact_match": count(exact), "broken_walk": count(50), "forced_position_accuracy": forced}},
        "probes": {"arm_following": {"follows": count(970)}},
    }
    points = [{"samples": 1000 * i, "split": "test", "evaluation": {"exact_match": count(k)}} for i, k in enumerate(curve)]
    cell = Cell(f"{objective}_{graph}{''.join(overrides)}", "objectives", overrides, objective.replace("_", " "), {}, (0, 1))
    return Result(record, tuple(points), cell)


NEXT_TOKEN = run("next_token", 500, curve=(0, 400, 500))
TOKEN_ORDER = [
    run("token_order", 990, curve=(0, 500, 960, 990), flops=1.1e9),
    run("token_order", 600, 1, curve=(0, 600), flops=1.1e9),
]
BELIEF = run("belief_state", 1000, curve=(0, 949, 950, 1000), flops=2e9)


def test_a_row_has_every_seed_and_costs_beside_next_token():
    table = leaderboard.leaderboard([NEXT_TOKEN, *TOKEN_ORDER], {"token_order G(2,5), 20": 1.234})
    assert table.rows[0] == (
        "G(2,5), 20",
        "token order",
        "5",
        "0.990 / 0.600",
        "1 of 2",
        "2 / -",
        "2.2 / -",
        "1,234",
        "1.10",
        "1.10",
        "1.23",
        "0.970 / 0.970",
        "0.050 / 0.050",
    )
    assert table.rows[1][1:7] == ("next token", "5", "0.500", "0 of 1", "-", "-")
    assert table.rows[1][8:11] == ("1.00", "1.00", "-")


def test_the_note_says_how_far_step_times_can_be_trusted():
    """Reversed does the work of next token; without a measurement nothing is said."""
    noisy = leaderboard.leaderboard([NEXT_TOKEN], {"reversed G(2,5), 20": 0.9, "reversed G(3,5), 20": 1.1, "mutor G(2,5), 20": 2})
    assert "is between 0.90 and 1.10)" in noisy.note
    assert "is between" not in leaderboard.leaderboard([NEXT_TOKEN], {}).note


def glance(*runs: Result) -> dict[str, tuple[str, ...]]:
    return {row[0]: row[1:] for row in solved.at_a_glance(runs).rows}


def test_at_a_glance_tells_a_guess_from_missing_lookups():
    """Guards a method called a cheat before it follows an edge, or though it left 1/d; 0 in an empty cell; 0.949 as 0.95."""
    other = (3, 5, 20)
    runs = [
        NEXT_TOKEN,
        run("next_token", 340, graph=other),
        run("token_order", 990, 0),
        run("token_order", 500, 1),
        run("teacherless", 3, others=110),
        run("masked_input", 949),
        run("next_latent", 521),
        run("belief_state", 490, others=940),
        run("random_order", 10, others=800),
    ]
    made = solved.at_a_glance(runs)
    assert made.header == ("objective", "G(2,5), N=20", "G(3,5), N=20")
    assert glance(*runs) == {
        "token order": ("1 of 2", ""),
        "next token": ("1/d", "1/d"),
        "teacherless": ("no lookups", ""),
        "masked input": ("0.94", ""),
        "next latent": ("0.52", ""),
        "belief state": ("0.49", ""),
        "random order": ("0.01", ""),
    }
    assert made.rows[0][0] == "token order"
    assert solved.at_a_glance([]).rows == ()


def test_what_solves_most_with_the_usual_samples_comes_first():
    """Guards one lucky seed of a longer run that stands above two of three; longer runs tell apart what is alike without them."""
    often = [run("next_latent", k, seed) for seed, k in enumerate((990, 990, 500))]
    lucky = [run("token_order", 500), run("token_order", 990, 1, n_steps=300)]
    rows = solved.at_a_glance([NEXT_TOKEN, *lucky, *often, run("mutor", 500)]).rows
    assert [row[0] for row in rows] == ["next latent", "token order", "next token", "mutor"]


def test_longer_runs_are_counted_by_themselves():
    """Guards a success with three times the samples that passes for one with those of everything else."""
    runs = [
        run("token_order", 500, 0),
        run("token_order", 960, 0, n_steps=300),
        run("token_order", 970, 1),
        run("token_order", 949, 2),
        NEXT_TOKEN,
        run("next_token", 500, n_steps=300),
        run("mutor", 500, n_steps=300),
    ]
    found = glance(*runs)
    assert found["token order"] == ("1 of 3; 30 k: 1 of 1",)
    assert found["next token"] == ("1/d; 30 k: 1/d",)
    assert found["mutor"] == ("30 k: 1/d",), "the only budget of an objective passed for that of the bench"


def test_who_solves_what_has_a_row_per_budget_and_an_interval_over_seeds():
    runs = [
        run("token_order", 500, 0, curve=(0,) * 3),
        run("token_order", 960, 0, curve=(0,) * 9, n_steps=300),
        run("token_order", 950, 1, curve=(0, 0, 950, 900)),
        run("token_order", 949, 2, curve=(1000,)),
        NEXT_TOKEN,
    ]
    assert solved.solved(runs).rows == (
        ("G(2,5), 20", "token order", "10", "1 of 3", "0.06 to 0.79", "seed 1: 2"),
        ("G(2,5), 20", "token order", "30", "1 of 1", "0.21 to 1.00", "seed 0: 9"),
    )


def test_runs_of_one_objective_with_other_parameters_are_not_counted_as_seeds_of_it():
    blind = run("sequential", 990, 0, curve=(0,) * 4, overrides=("objective=sequential", "objective.sees=answer"))
    rows = solved.solved([blind, run("sequential", 500, 1, curve=(0,) * 9), NEXT_TOKEN]).rows
    assert [row[1:4] for row in rows] == [("sequential (sees: answer)", "10", "1 of 1")]


def test_a_step_time_is_that_of_the_preset():
    blind = run("token_order", 990)
    blind = replace(blind, cell=replace(blind.cell, overrides=("objective.weight=2",)))
    assert leaderboard.leaderboard([blind], {"token_order G(2,5), 20": 1.234}).rows[0][10] == "-"


def test_a_mix_of_precisions_is_said():
    other = run("belief_state", 1000)
    other.config["training"]["precision"] = "bf16"
    assert leaderboard.leaderboard([NEXT_TOKEN, *TOKEN_ORDER, other], {}).note.endswith("1 runs in bf16, 3 runs in fp32.")


def test_what_most_seeds_solve_comes_first_then_the_quickest():
    """Two of two before one of two, whatever the median; then the samples of the median seed; longer runs after all others."""
    slow = run("multi_token", 1000, curve=(0, 0, 0, 0, 1000))
    other = run("reversed", 1000, graph=(3, 5, 20), curve=(0, 1000))
    longer = run("mutor", 1000, curve=(0, 1000), n_steps=300)
    rows = leaderboard.leaderboard([longer, other, *TOKEN_ORDER, slow, NEXT_TOKEN, BELIEF], {}).rows
    assert [row[1] for row in rows] == ["belief state", "multi token", "token order", "next token", "mutor", "reversed"]
    assert [row[9] for row in rows] == ["2.00", "1.00", "1.10", "1.00", "1.00", "-"], "no next token on the last graph"


@pytest.mark.parametrize(("curve", "samples"), [((0, 949), None), ((0, 950, 3), 1000), ((1000,), 0), ((), None)])
def test_solved_from_the_first_evaluation_on_that_says_so(curve, samples):
    assert run("next_token", 0, curve=curve).samples_to_solve == samples


def test_tera_flop_are_samples_times_flop():
    big = run("belief_state", 1000, curve=(0,) * 250 + (1000,), flops=2e8)
    assert leaderboard.leaderboard([big], {}).rows[0][5:7] == ("250", "50.0")


PAPER = {
    "source": "a paper",
    "ours": {"TOP": "token_order", "BST": "belief_state", "next_token": "next_token", "MTP": "multi_token"},
    "rows": [
        {"degree": 2, "path_length": 5, "numbers": {"TOP": 40.0, "BST": 100, "next_token": 50.0}},
        {"degree": 7, "path_length": 7, "numbers": {"TOP": 40.0, "BST": 100}},
    ],
}


@pytest.fixture
def published(tmp_path):
    path = tmp_path / "published.yaml"
    path.write_text(yaml.safe_dump([PAPER], sort_keys=False))
    return path


def test_orderings_are_compared_pair_by_pair(published):
    """BST above both in both; next token above TOP there, below it here; a graph that we have not is left out."""
    top = run("token_order", 800)
    table = leaderboard.agreement(published, [NEXT_TOKEN, top, BELIEF])
    numbers = "token_order 0.400 / 0.800 (1), belief_state 1.000 / 1.000 (1), next_token 0.500 / 0.500 (1)"
    alike = "belief_state > token_order; belief_state > next_token"
    assert table.rows == (("G(2,5), 20", "a paper", "10", numbers, "3", alike, "next_token > token_order", "none"),)
    close = leaderboard.agreement(published, [NEXT_TOKEN, run("token_order", 540), BELIEF])
    assert close.rows[0][4:] == ("3", alike, "none", "next_token > token_order"), "a difference of 0.04 is no order"
    ours = run("token_order", 950, overrides=("objective.temperature=2",))
    rows = leaderboard.agreement(published, [NEXT_TOKEN, top, ours, BELIEF]).rows
    assert rows == table.rows, "a variant of ours passed for the method"


def test_an_undertrained_number_orders_nothing_whosever_it_is(published):
    lost = leaderboard.agreement(published, [NEXT_TOKEN, run("token_order", 100, others=499), BELIEF]).rows[0]
    assert "token_order 0.400 / 0.100 (1) (undertrained)" in lost[3]
    assert lost[4:] == ("3", "belief_state > next_token", "none", "belief_state > token_order; next_token > token_order")
    paper = PAPER | {"rows": [{"degree": 2, "path_length": 5, "numbers": {"TOP": 24.9, "BST": 100, "next_token": 50.0}}]}
    published.write_text(yaml.safe_dump([paper], sort_keys=False))
    there = leaderboard.agreement(published, [NEXT_TOKEN, run("token_order", 800), BELIEF]).rows[0]
    assert "token_order 0.249 / 0.800 (1) (undertrained there)" in there[3]
    assert there[4:] == ("1", "belief_state > next_token", "none", "none")


def test_only_the_same_samples_are_compared(published):
    """A longer run stands beside longer runs; a graph with more node values is another graph."""
    longer = [run("token_order", 990, n_steps=300), run("next_token", 510, n_steps=300)]
    harder = [run("token_order", 0, graph=(2, 5, 50)), run("next_token", 0, graph=(2, 5, 50))]
    rows = leaderboard.agreement(published, [NEXT_TOKEN, run("token_order", 540), *longer, *harder]).rows
    assert [(row[2], row[3]) for row in rows] == [
        ("10", "token_order 0.400 / 0.540 (1), next_token 0.500 / 0.500 (1)"),
        ("30", "token_order 0.400 / 0.990 (1), next_token 0.500 / 0.510 (1)"),
    ]


def test_pairs_that_change_places_between_samples_and_flop():
    """Belief state needs fewer samples and more operations than multi token; next token solves nothing."""
    multi = run("multi_token", 1000, curve=(0, 0, 0, 1000), flops=1e12)
    belief = run("belief_state", 1000, curve=(0, 949, 950, 1000), flops=2e12)
    assert leaderboard.by_cost([belief, multi, NEXT_TOKEN]).rows == (
        (
            "G(2,5), 20",
            "belief state 2 (1); multi token 3 (1)",
            "multi token 3,000.0 (1); belief state 4,000.0 (1)",
            "belief state, multi token",
            "none",
        ),
    )
    assert leaderboard.by_cost([NEXT_TOKEN]).rows == ()


def test_a_seed_that_fails_counts_and_a_longer_run_of_it_is_its_own():
    """Guards a median of the lucky seeds: one of two is none; with a longer run of the other it is both."""
    lucky, failed = TOKEN_ORDER
    belief = run("belief_state", 1000, curve=(0, 1000))
    rows = leaderboard.by_cost([lucky, failed, belief]).rows
    assert rows[0][1:] == ("belief state 1 (1)", "belief state 1.0 (1)", "none", "token order")
    longer = run("token_order", 1000, 1, curve=(0, 0, 0, 0, 1000), n_steps=300)
    assert leaderboard.by_cost([lucky, failed, longer]).rows[0][1] == "token order 3 (2)"


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
