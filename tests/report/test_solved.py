"""Tables of the graphs that each objective solves. Longer runs are counted separately, and every failure has its reason."""

from pitfalls.report.solved import at_a_glance, by_objective, lacks_lookups, solved, summary, usual_budget
from pitfalls.results.kept import Result
from tests.kept_runs import a_result

G = (2, 5, 20)


def run(objective: str, exact: int, seed: int = 0, *, curve: tuple[int, ...] = (), **changes) -> Result:
    """A run whose curve has a point every 1,000 samples."""
    return a_result(exact, seed, objective=objective, curve=curve, samples=1000 * len(curve), **({"graph": G} | changes))


NEXT_TOKEN = run("next_token", 500, curve=(0, 400, 500))


def glance(*runs: Result) -> dict[str, tuple[str, ...]]:
    return {row[0]: row[1:] for row in at_a_glance(runs)["at_a_glance"].rows}


def test_at_a_glance_tells_a_guess_from_missing_lookups():
    """Guards against a method called a cheat before it follows an edge, or although it left 1/d.

    Also against a 0 in an empty cell, and 0.949 shown as 0.95. A cell without a success still shows the number of seeds.
    """
    runs = [
        NEXT_TOKEN,
        run("next_token", 340, graph=(3, 5, 20)),
        run("token_order", 990, 0),
        run("token_order", 500, 1),
        run("teacherless", 3, others=110),
        run("masked_input", 949),
        run("next_latent", 521),
        run("belief_state", 490, others=940),
        run("random_order", 10, others=800),
        run("mutor", 500, 0),
        run("mutor", 500, 1),
    ]
    made = at_a_glance(runs)["at_a_glance"]
    assert made.header == ("objective", "G(2,5), N=20", "G(3,5), N=20")
    assert glance(*runs) == {
        "token order": ("1 of 2", ""),
        "next token": ("0 of 1, guesses", "0 of 1, guesses"),
        "teacherless": ("0 of 1, no lookups", ""),
        "masked input": ("0 of 1, 0.949", ""),
        "next latent": ("0 of 1, 0.521", ""),
        "belief state": ("0 of 1, 0.490", ""),
        "random order": ("0 of 1, 0.010", ""),
        "mutor": ("0 of 2, guesses", ""),
    }
    assert made.rows[0][0] == "token order"
    assert [table.rows for table in at_a_glance([]).values()] == [(), ()]


def test_few_and_many_node_values_are_two_tables():
    """Guards against a table that is too wide to read, and a graph that is in neither."""
    tables = at_a_glance([NEXT_TOKEN, run("next_token", 500, graph=(2, 5, 30)), run("next_token", 500, graph=(2, 5, 50))])
    assert tables["at_a_glance"].header == ("objective", "G(2,5), N=20", "G(2,5), N=30")
    assert tables["at_a_glance_n50"].header == ("objective", "G(2,5), N=50")


def test_what_solves_most_with_the_usual_samples_comes_first():
    """Guards against one lucky seed of a longer run that is ranked above two of three. Longer runs only break ties."""
    often = [run("next_latent", k, seed) for seed, k in enumerate((990, 990, 500))]
    lucky = [run("token_order", 500), run("token_order", 990, 1, n_steps=300)]
    rows = at_a_glance([NEXT_TOKEN, *lucky, *often, run("mutor", 500)])["at_a_glance"].rows
    assert [row[0] for row in rows] == ["next latent", "token order", "next token", "mutor"]


def test_longer_runs_are_counted_by_themselves():
    """Guards against a success with three times the samples that looks like one with the usual number."""
    runs = [
        run("token_order", 500, 0),
        run("token_order", 960, 0, n_steps=300),
        run("token_order", 970, 1),
        run("token_order", 949, 2),
        NEXT_TOKEN,
        run("next_token", 500, n_steps=300),
        run("mutor", 500, n_steps=300),
    ]
    assert usual_budget(runs) == 10_000
    assert usual_budget([]) == 0
    found = glance(*runs)
    assert found["token order"] == ("1 of 3; 30 k: 1 of 1",)
    assert found["next token"] == ("0 of 1, guesses; 30 k: 0 of 1, guesses",)
    assert found["mutor"] == ("30 k: 0 of 1, guesses",), "the only budget of an objective passed for that of the bench"


def test_the_summary_is_nine_presets_and_next_token_last():
    """Guards against a README without its control, or with a variant among the presets."""
    names = [f"method_{i}" for i in range(12)]
    variant = run("method_0", 1000, overrides=("objective.weight=2",))
    many = [NEXT_TOKEN, *(run(name, 990 if name == "method_7" else 600) for name in names), variant]
    rows = summary([*many, run("far", 990, graph=(2, 5, 50))]).rows
    assert len(rows) == 10
    assert rows[0] == ("method 7", "1 of 1")
    assert rows[-1] == ("next token", "0 of 1, guesses")
    assert not any("weight" in row[0] or row[0] == "far" for row in rows)


def test_the_summary_shows_the_budget_with_which_most_seeds_solve():
    """Guards against a README that calls a method a failure although longer runs solve the graph, or that hides their length."""
    runs = [run("token_order", k, seed) for seed, k in enumerate((500, 990))]
    runs += [run("token_order", 990, seed, n_steps=300) for seed in range(2)]
    runs += [run("mutor", 990), run("mutor", 990, n_steps=300), run("next_token", 500, n_steps=300), NEXT_TOKEN]
    assert dict(row for row in summary(runs).rows) == {
        "token order": "30 k: 2 of 2",
        "mutor": "1 of 1",
        "next token": "0 of 1, guesses",
    }


def test_the_summary_has_its_control_even_where_nobody_trained_it():
    assert summary([run("mutor", 990)]).rows == (("mutor", "1 of 1"), ("next token", ""))
    assert summary([]).rows == (("next token",),)


def test_who_solves_what_has_a_row_per_budget_and_an_interval_over_seeds():
    runs = [
        run("token_order", 500, 0, curve=(0,) * 3),
        run("token_order", 960, 0, curve=(0,) * 9, n_steps=300),
        run("token_order", 950, 1, curve=(0, 0, 950, 900)),
        run("token_order", 949, 2, curve=(1000,)),
        NEXT_TOKEN,
    ]
    assert solved(runs).rows == (
        ("G(2,5), 20", "token order", "10", "1 of 3", "0.06 to 0.79", "seed 1: 2"),
        ("G(2,5), 20", "token order", "30", "1 of 1", "0.21 to 1.00", "seed 0: 9"),
    )


def test_runs_of_one_objective_with_other_parameters_are_not_counted_as_seeds_of_it():
    blind = run("sequential", 990, 0, curve=(0,) * 4, overrides=("objective=sequential", "objective.sees=answer"))
    rows = solved([blind, run("sequential", 500, 1, curve=(0,) * 9), NEXT_TOKEN]).rows
    assert [row[1:4] for row in rows] == [("sequential (sees: answer)", "10", "1 of 1")]


def test_the_table_of_an_objective_has_every_graph_setting_and_budget():
    """Guards against a failure that is left out of the page of its objective."""
    runs = [
        run("mutor", 990, 0, curve=(0, 0, 990)),
        run("mutor", 500, 1, curve=(0, 500)),
        run("mutor", 500, 0, curve=(500,), n_steps=300),
        run("mutor", 3, 0, others=110, graph=(3, 5, 20)),
        run("mutor", 960, 0, curve=(960,), overrides=("objective.weight=2",)),
        NEXT_TOKEN,
    ]
    tables = by_objective(runs)
    assert list(tables) == ["mutor", "next_token"]
    assert tables["mutor"].rows == (
        ("G(2,5), 20", "preset", "10", "1 of 2", "0.990 / 0.500", "2 / -"),
        ("G(2,5), 20", "preset", "30", "0 of 1, guesses", "0.500", "-"),
        ("G(2,5), 20", "weight: 2", "10", "1 of 1", "0.960", "0"),
        ("G(3,5), 20", "preset", "10", "0 of 1, no lookups", "0.003", "-"),
    )


def test_lookups_are_missing_where_most_seeds_lack_them():
    lost, learned = run("mutor", 3, others=499), run("mutor", 500, 1, others=500)
    assert lacks_lookups([lost])
    assert not lacks_lookups([learned])
    assert not lacks_lookups([lost, learned])
    assert lacks_lookups([lost, lost, learned])
    assert not lacks_lookups([a_result(None, first_hop=500, others=None)]), "nothing is known of it"
