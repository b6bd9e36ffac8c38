"""The sentence about a finished run names its state: no lookups, a guess, or solved."""

import pytest

from pitfalls.report.argument import sentence
from tests.kept_runs import a_kept

CASES = [
    (
        {"exact": 500},
        "every other token is right given the path so far (1.00), and the right arm is taken 0.50 of the time, 1 in 2: "
        "the first hop is a guess",
    ),
    (
        {"exact": 200, "graph": (5, 5, 50)},
        "every other token is right given the path so far (1.00), and the right arm is taken 0.20 of the time, 1 in 5: "
        "the first hop is a guess",
    ),
    ({"exact": 997}, "solved: 0.997 of the paths on new graphs are right"),
    (
        {"exact": 500, "others": 600},
        "it does not follow edges yet: some token is right 0.60 of the time, so it proves nothing",
    ),
    (
        {"exact": 700},
        "every other token is right given the path so far (1.00), and the first hop is right 0.70 of the time (a guess: 0.50)",
    ),
    (
        {"exact": None, "first_hop": 510, "others": None},
        "trained on the first hop alone, it is right 0.51 of the time: a guess among 2 arms",
    ),
    (
        {"exact": 490, "train_graphs": 3000, "train": 1000},
        "1.00 of its training graphs are fitted; on new ones every other token is right given the path so far (1.00), and the "
        "right arm is taken 0.49 of the time, 1 in 2: the first hop is a guess",
    ),
]


@pytest.mark.parametrize(("run", "said"), CASES)
def test_the_state_is_said(run, said):
    """Guards against "it fails" for a model that has no lookups yet, and a guess that is measured against 1/2 everywhere."""
    assert sentence(a_kept(**run)) == said
