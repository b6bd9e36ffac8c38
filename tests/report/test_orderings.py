"""Orderings are compared pair by pair, and an undertrained number orders nothing."""

import pytest
import yaml

from pitfalls.report.orderings import AGREEMENT_HEADER, COST_HEADER, agreement, by_cost
from pitfalls.report.published import read_papers
from pitfalls.results.kept import Result
from tests.kept_runs import a_result

G = (2, 5, 20)
ALIKE, OTHERWISE, NOT_ORDERED = "alike here", "otherwise here", "not ordered here"


def run(objective: str, exact: int, seed: int = 0, *, curve: tuple[int, ...] = (), flops: float = 1e9, **changes) -> Result:
    """A run whose curve has a point every 1,000 samples."""
    plain = {"graph": G, "samples": 1000 * len(curve)}
    return a_result(exact, seed, objective=objective, curve=curve, flops=flops, **(plain | changes))


NEXT_TOKEN = run("next_token", 500, curve=(0, 400, 500))
TOKEN_ORDER = [
    run("token_order", 990, curve=(0, 500, 960, 990), flops=1.1e9),
    run("token_order", 600, 1, curve=(0, 600), flops=1.1e9),
]
BELIEF = run("belief_state", 1000, curve=(0, 949, 950, 1000), flops=2e9)
PAPER = {
    "source": "a paper, Table 5",
    "short": "a paper",
    "setting": "as it is",
    "n_values": 30,
    "ours": {"TOP": "token_order", "BST": "belief_state", "next_token": "next_token"},
    "rows": [
        {"degree": 2, "path_length": 5, "numbers": {"TOP": 40.0, "BST": 100, "next_token": 50.0}},
        {"degree": 7, "path_length": 7, "numbers": {"TOP": 40.0, "BST": 100}},
    ],
}


@pytest.fixture
def papers(tmp_path):
    def read(**changes):
        path = tmp_path / "published.yaml"
        path.write_text(yaml.safe_dump([PAPER | changes], sort_keys=False))
        return read_papers(path)

    return read


def compared(papers, *results):
    return [dict(zip(AGREEMENT_HEADER, row, strict=True)) for row in agreement(papers, results).rows]


def pairs(row):
    """Return the cells of pairs: ordered by the source, alike, otherwise and not ordered here, then all of them in words."""
    counts = (row["pairs ordered there"], row[ALIKE], row[OTHERWISE], row[NOT_ORDERED])
    return counts, tuple(row[f"pairs {kind}"] for kind in (ALIKE, OTHERWISE, NOT_ORDERED))


def test_orderings_are_compared_pair_by_pair(papers):
    """BST is above both in both. Next token is above TOP there and below it here. A graph that we do not have is left out."""
    top = run("token_order", 800)
    table = agreement(papers(), [NEXT_TOKEN, top, BELIEF])
    numbers = "token_order 0.400 / 0.800 (1), belief_state 1.000 / 1.000 (1), next_token 0.500 / 0.500 (1)"
    alike = "belief_state > token_order; belief_state > next_token"
    first = ("G(2,5), 20", "a paper", "10", "3", "2", "1", "0", numbers, alike, "next_token > token_order", "none")
    assert table.rows == (first,)
    assert table.for_people().header == AGREEMENT_HEADER[:7], "the pairs in words are for the CSV"
    (close,) = compared(papers(), NEXT_TOKEN, run("token_order", 540), BELIEF)
    assert pairs(close) == (("3", "2", "0", "1"), (alike, "none", "next_token > token_order")), "0.04 is no order"
    ours = run("token_order", 950, overrides=("objective.temperature=2",))
    rows = agreement(papers(), [NEXT_TOKEN, top, ours, BELIEF]).rows
    assert rows == table.rows, "a variant of ours passed for the method"


def test_an_undertrained_number_orders_nothing_whosever_it_is(papers):
    (lost,) = compared(papers(), NEXT_TOKEN, run("token_order", 100, others=499), BELIEF)
    assert "token_order 0.400 / 0.100 (1) (undertrained)" in lost["published / ours"]
    words = ("belief_state > next_token", "none", "belief_state > token_order; next_token > token_order")
    assert pairs(lost) == (("3", "1", "0", "2"), words)
    rows = [{"degree": 2, "path_length": 5, "numbers": {"TOP": 24.9, "BST": 100, "next_token": 50.0}}]
    (there,) = compared(papers(rows=rows), NEXT_TOKEN, run("token_order", 800), BELIEF)
    assert "token_order 0.249 / 0.800 (1) (undertrained there)" in there["published / ours"]
    assert pairs(there) == (("1", "1", "0", "0"), ("belief_state > next_token", "none", "none"))


@pytest.mark.parametrize(("published", "ordered"), [(54, "0"), (46, "0"), (56, "1"), (44, "1")])
def test_a_source_orders_only_what_is_clearly_apart_in_it(papers, published, ordered):
    """Guards against a pair that differs by less than 0.05 in the source and counts as ordered there."""
    rows = [{"degree": 2, "path_length": 5, "numbers": {"TOP": published, "BST": 100, "next_token": 50.0}}]
    (row,) = compared(papers(rows=rows), NEXT_TOKEN, run("token_order", 800))
    assert pairs(row)[0][0] == ordered


def test_only_the_same_samples_are_compared(papers):
    """A longer run is compared with longer runs. A graph with more node values is another graph."""
    longer = [run("token_order", 990, n_steps=300), run("next_token", 510, n_steps=300)]
    harder = [run("token_order", 0, graph=(2, 5, 50)), run("next_token", 0, graph=(2, 5, 50))]
    rows = compared(papers(), NEXT_TOKEN, run("token_order", 540), *longer, *harder)
    assert [(row["samples at most (k)"], row["published / ours"]) for row in rows] == [
        ("10", "token_order 0.400 / 0.540 (1), next_token 0.500 / 0.500 (1)"),
        ("30", "token_order 0.400 / 0.990 (1), next_token 0.500 / 0.510 (1)"),
    ]


def test_a_longer_path_is_another_graph(papers):
    """Guards against numbers of G(2,7) beside those of a paper on G(2,5)."""
    assert agreement(papers(), [run(name, 990, graph=(2, 7, 20)) for name in ("token_order", "belief_state")]).rows == ()


def test_one_method_alone_is_no_ordering(papers):
    assert agreement(papers(), [NEXT_TOKEN]).rows == ()


def test_pairs_that_change_places_between_samples_and_flop():
    """Belief state needs fewer samples and more operations than multi token. Next token solves nothing."""
    multi = run("multi_token", 1000, curve=(0, 0, 0, 1000), flops=1e12)
    belief = run("belief_state", 1000, curve=(0, 949, 950, 1000), flops=2e12)
    assert by_cost([belief, multi, NEXT_TOKEN]).rows == (
        ("G(2,5), 20", "belief state", "1", "2", "1", "4,000.0", "2", "multi token"),
        ("G(2,5), 20", "multi token", "1", "3", "2", "3,000.0", "1", "belief state"),
    )
    assert by_cost([NEXT_TOKEN]).rows == ()
    assert len(COST_HEADER) == 8


def test_a_seed_that_fails_counts_and_a_longer_run_of_it_is_its_own():
    """Guards against a median of the lucky seeds only. One of two counts as none. With a longer run of the other, both count."""
    lucky, failed = TOKEN_ORDER
    belief = run("belief_state", 1000, curve=(0, 1000))
    table = by_cost([lucky, failed, belief])
    assert table.rows == (("G(2,5), 20", "belief state", "1", "1", "1", "1.0", "1", ""),)
    assert table.note.endswith("but not by the median one: G(2,5), N=20: token order.")
    longer = run("token_order", 1000, 1, curve=(0, 0, 0, 0, 1000), n_steps=300)
    rows = by_cost([lucky, failed, longer]).rows
    assert [row[1:4] for row in rows] == [("token order", "2", "3")]


def test_graphs_do_not_change_places_with_each_other():
    """Guards against ranks that are counted over all graphs."""
    rows = by_cost([BELIEF, run("belief_state", 1000, graph=(3, 5, 20), curve=(0, 1000), flops=9e9)]).rows
    assert [(row[0], row[4], row[6], row[7]) for row in rows] == [
        ("G(2,5), 20", "1", "1", ""),
        ("G(3,5), 20", "1", "1", ""),
    ]
