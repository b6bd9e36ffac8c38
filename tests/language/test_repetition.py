"""Loops and n-grams of sequences made by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitfalls.language.repetition import MIN_COPIES, Loop, distinct, final_loop, find_loops, n_grams, repeated


@pytest.mark.parametrize(
    ("tokens", "loops"),
    [
        ([], []),
        ([1, 2, 3, 4], []),
        ([1, 1], []),
        ([5, 1, 2, 1, 2], []),
        ([1, 1, 1], [Loop(0, 1, 3)]),
        ([9, 1, 1, 1, 1, 8], [Loop(1, 1, 5)]),
        ([7, 1, 2, 1, 2, 1, 2], [Loop(1, 2, 7)]),
        ([7, 1, 2, 1, 2, 1, 2, 1], [Loop(1, 2, 8)]),
        ([1, 2, 3] * 4 + [0], [Loop(0, 3, 12)]),
        ([1, 1, 2] * 3, [Loop(0, 3, 9)]),
        ([4, 4, 4, 5, 6, 6, 6], [Loop(0, 1, 3), Loop(4, 1, 7)]),
        ([1, 1, 1, 2] * 3, [Loop(0, 1, 3), Loop(4, 1, 7), Loop(8, 1, 11), Loop(0, 4, 12)]),
    ],
)
def test_loops_of_sequences_made_by_hand(tokens, loops):
    """Compare starts, periods and ends. A loop within the unit of another is a loop too. Six ones are no loop of period two."""
    assert find_loops(tokens) == loops


def test_what_a_loop_says_of_itself():
    """Compare the number of copies, and the place where the third is complete."""
    loop = Loop(start=10, period=4, end=24)
    assert loop.copies == 3.5
    assert loop.formed == 22
    assert [loop.copy_of(place) for place in (10, 13, 14, 22, 23)] == [1, 1, 2, 4, 4]


def test_the_final_loop_is_the_one_that_never_ends():
    """One that was left does not count."""
    assert final_loop([1, 1, 1, 2, 3]) is None
    assert final_loop([1, 1, 1, 2, 3, 2, 3, 2, 3]) == Loop(3, 2, 9)


@given(st.lists(st.integers(0, 2), max_size=30))
def test_every_loop_is_one_and_none_is_missed(tokens):
    """Compare with the definition: a loop has its copies and cannot be longer. Any stretch with three copies lies in a loop."""
    loops = find_loops(tokens)
    for loop in loops:
        stretch = tokens[loop.start : loop.end]
        assert all(stretch[i] == stretch[i - loop.period] for i in range(loop.period, len(stretch)))
        assert loop.copies >= MIN_COPIES
        assert loop.end == len(tokens) or tokens[loop.end] != tokens[loop.end - loop.period]
        assert loop.start == 0 or tokens[loop.start - 1] != tokens[loop.start - 1 + loop.period]
    for period in range(1, len(tokens) // 3 + 1):
        for start in range(len(tokens) - 3 * period + 1):
            unit = tokens[start : start + period]
            if tokens[start : start + 3 * period] == unit * 3:
                assert any(a.start <= start and start + 3 * period <= a.end and period % a.period == 0 for a in loops)


def test_n_grams_are_counted():
    """Compare rep-n of a text and distinct-n of several texts with counts by hand."""
    assert n_grams([1, 2, 3], 2) == [(1, 2), (2, 3)]
    assert repeated([1, 2, 1, 2, 1], 2) == 0.5
    assert repeated([1, 2, 3], 1) == 0
    assert repeated([7] * 11, 1) == pytest.approx(10 / 11)
    assert distinct([[1, 2], [1, 2], [3, 4]], 2) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="2 tokens have no 3-gram"):
        repeated([1, 2], 3)
    with pytest.raises(ValueError, match="1 texts have no 2-gram"):
        distinct([[1]], 2)
