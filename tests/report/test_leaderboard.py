"""The leaderboard of objectives: what it shows is what the records hold."""

import msgspec

from pitfalls.report.leaderboard import HEADER, decodings, leaderboard
from pitfalls.results.kept import Result
from pitfalls.runs.probe_records import Probes
from tests.kept_runs import a_result, count, follows

G = (2, 5, 20)


def run(objective: str, exact: int, seed: int = 0, *, curve: tuple[int, ...] = (), flops: float = 1e9, **changes) -> Result:
    """A run whose curve has a point every 1,000 samples, with some broken walks."""
    plain = {"graph": G, "broken": 0 if exact > 950 else 50, "probes": Probes(arm_following=follows(970))}
    return a_result(exact, seed, objective=objective, curve=curve, samples=1000 * len(curve), flops=flops, **(plain | changes))


NEXT_TOKEN = run("next_token", 500, curve=(0, 400, 500))
TOKEN_ORDER = [
    run("token_order", 990, curve=(0, 500, 960, 990), flops=1.1e9),
    run("token_order", 600, 1, curve=(0, 600), flops=1.1e9),
]
BELIEF = run("belief_state", 1000, curve=(0, 949, 950, 1000), flops=2e9)


def column(table, name):
    return [row[HEADER.index(name)] for row in table.rows]


def test_a_row_has_every_seed_and_costs_beside_next_token():
    table = leaderboard([NEXT_TOKEN, *TOKEN_ORDER], {"token_order G(2,5), 20": 1.234})
    assert table.rows[0] == (
        "G(2,5), 20",
        "token order",
        "10",
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
        "0.000 / 0.050",
    )
    assert table.rows[1][1:8] == ("next token", "10", "5", "0.500", "0 of 1", "-", "-")
    assert table.rows[1][9:12] == ("1.00", "1.00", "-")
    assert len(table.for_people().header) == 8


def test_the_note_says_how_far_step_times_can_be_trusted():
    """Reversed costs as much as next token, so its ratio shows the accuracy. Without a measurement there is no remark."""
    noisy = leaderboard([NEXT_TOKEN], {"reversed G(2,5), 20": 0.9, "reversed G(3,5), 20": 1.1, "mutor G(2,5), 20": 2})
    assert "is between 0.90 and 1.10)" in noisy.note
    assert "is between" not in leaderboard([NEXT_TOKEN], {}).note


def test_a_step_time_is_that_of_the_preset():
    blind = run("token_order", 990, overrides=("objective.weight=2",))
    assert column(leaderboard([blind], {"token_order G(2,5), 20": 1.234}), "step time") == ["-"]


def test_a_mix_of_precisions_is_said():
    other = run("belief_state", 1000, precision="bf16")
    assert leaderboard([NEXT_TOKEN, *TOKEN_ORDER, other], {}).note.endswith("1 runs in bf16, 3 runs in fp32.")


def test_what_most_seeds_solve_comes_first_then_the_quickest():
    """Two of two come before one of two, whatever the median. Then samples of the median seed count. Longer runs come last."""
    slow = run("multi_token", 1000, curve=(0, 0, 0, 0, 1000))
    other = run("reversed", 1000, graph=(3, 5, 20), curve=(0, 1000))
    longer = run("mutor", 1000, curve=(0, 1000), n_steps=300)
    table = leaderboard([longer, other, *TOKEN_ORDER, slow, NEXT_TOKEN, BELIEF], {})
    assert column(table, "objective") == ["belief state", "multi token", "token order", "next token", "mutor", "reversed"]
    assert column(table, "FLOP per sample") == ["2.00", "1.00", "1.10", "1.00", "1.00", "-"], "no next token on the last graph"


def test_the_share_of_solved_seeds_ranks_and_not_their_number():
    """Guards against a method of many seeds that comes first because more were tried: two of four come after one of one."""
    many = [run("mutor", k, seed, curve=(0, k)) for seed, k in enumerate((990, 990, 500, 500))]
    assert column(leaderboard([*many, run("reversed", 990, curve=(0, 0, 990))], {}), "objective") == ["reversed", "mutor"]


def test_tera_flop_are_samples_times_flop():
    big = run("belief_state", 1000, curve=(0,) * 250 + (1000,), flops=2e8)
    assert leaderboard([big], {}).rows[0][6:8] == ("250", "50.0")


def test_a_record_of_the_first_version_has_dashes():
    """Guards against a table that needs fields which the first records lack."""
    run_ = run("next_token", 1000, curve=(0, 1000))
    old = msgspec.structs.replace(run_.record, cost=msgspec.UNSET, horizon=msgspec.UNSET, n_objective_parameters=msgspec.UNSET)
    (row,) = leaderboard([msgspec.structs.replace(run_, record=old)], {}).rows
    assert row[3:12] == ("-", "1.000", "1 of 1", "1", "-", "0", "-", "-", "-")


def test_other_decodings_are_shown_beside_the_method_s_own():
    """A run without this probe, as in older records, has no row."""
    found = Probes(other_decodings={"goal_first": count(999), "blockwise": count(5)})
    asked, not_asked = run("random_order", 331, probes=found), run("random_order", 332, 1)
    assert decodings([NEXT_TOKEN, asked, not_asked]).rows == (
        ("G(2,5), 20", "random order", "0", "autoregressive 0.331", "goal first 0.999, blockwise 0.005"),
    )
