"""Streams of batches: no test graph in training, and batches that depend on the step alone."""

import pytest
import torch

from pitfalls.schemas import ConfigError
from pitfalls.seeding import generator
from pitfalls.tasks import splits
from pitfalls.tasks.batch import Batch
from pitfalls.tasks.path_star import PathStar
from pitfalls.tasks.splits import Fixed, Online, Splits, check_split, make_splits, sample_unseen

SMALL = PathStar(2, 2, 6)
"""A task with 60 distinct graphs. Some hundred draws certainly meet ten given ones."""
TASK = PathStar(2, 3, 12)


def small_splits(task: PathStar = SMALL, **changes: object) -> Splits:
    arguments = {"seed": 0, "batch_size": 32, "train_graphs": None, "test_graphs": 10, "targets_per_graph": 1}
    return make_splits(task, **(arguments | changes))


def edge_sets(task: PathStar, batch: Batch) -> set[frozenset[tuple[int, int]]]:
    """Return graphs as sets of edges, without the keys that the code itself compares."""
    return {frozenset(map(tuple, row)) for row in task.edges(batch.prompt).tolist()}


def training_rows(made: Splits, n_steps: int = 20) -> Batch:
    batches = [made.train.batch(step) for step in range(n_steps)]
    return Batch(torch.cat([b.prompt for b in batches]), torch.cat([b.target for b in batches]))


REGIMES = [
    {"train_graphs": None},
    {"train_graphs": None, "targets_per_graph": 2},
    {"train_graphs": 40},
    {"train_graphs": 40, "targets_per_graph": 2},
]


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("seed", [0, 1])
def test_no_test_graph_occurs_in_training(regime: dict, seed: int):
    """Guards against defect 10 of the official code: train and test drawn from one space without a check."""
    made = small_splits(seed=seed, **regime)
    rows = training_rows(made)
    test, train = edge_sets(SMALL, made.test), edge_sets(SMALL, rows)
    assert len(test) > 5
    assert len(train) > 20
    assert not test & train
    if regime["train_graphs"] is not None:
        assert not test & edge_sets(SMALL, made.train.all_rows())


@pytest.mark.parametrize("regime", REGIMES)
def test_without_the_check_test_graphs_do_occur(regime: dict, monkeypatch: pytest.MonkeyPatch):
    """Proves that the previous test can fail: it is the check, not luck, that keeps the sets apart."""
    monkeypatch.setattr(splits, "_contains", lambda keys, queries: torch.zeros_like(queries, dtype=torch.bool))
    made = small_splits(**regime)
    assert edge_sets(SMALL, made.test) & edge_sets(SMALL, training_rows(made))


@pytest.mark.parametrize("targets_per_graph", [1, 2])
def test_replaced_rows_are_whole_samples(targets_per_graph: int):
    """Guards against a redraw that mixes the prompt of one graph with the target of another, or splits a graph's rows."""
    made = small_splits(targets_per_graph=targets_per_graph, batch_size=64)
    for step in range(5):
        batch = made.train.batch(step)
        assert (SMALL.verify(batch.prompt, batch.target) == 0).all()
        pairs = batch.prompt.view(-1, targets_per_graph, SMALL.prompt_length)
        assert (pairs[:, :, : 3 * SMALL.n_edges] == pairs[:, :1, : 3 * SMALL.n_edges]).all()
        assert all(len(set(goals)) == targets_per_graph for goals in pairs[:, :, -2].tolist())


def test_redraws_stay_uniform_over_the_graphs_that_are_left():
    """Guards against a redraw that favours some graphs: every one of the 50 or so others turns up about equally often."""
    made = small_splits(batch_size=1000)
    keys = SMALL.graph_keys(training_rows(made, 6).prompt)
    counts = keys.unique(return_counts=True)[1].double()
    expected = 6000 / len(counts)
    assert len(counts) == 60 - len(edge_sets(SMALL, made.test))
    assert ((counts - expected) / expected**0.5).abs().max() < 4.5


@pytest.mark.parametrize("train_graphs", [None, 40])
def test_an_impossible_split_is_refused_with_the_numbers(train_graphs: int | None):
    test_graphs = 31 if train_graphs is None else 21
    with pytest.raises(ConfigError, match=rf"only 60 distinct graphs.*{test_graphs} test graphs.*task.n_values"):
        small_splits(train_graphs=train_graphs, test_graphs=test_graphs)
    check_split(SMALL, train_graphs=train_graphs, test_graphs=test_graphs - 1)


def test_redrawing_gives_up_with_a_message(monkeypatch: pytest.MonkeyPatch):
    """Guards against an endless loop where every graph is held out."""
    monkeypatch.setattr(splits, "MAX_REDRAWS", 50)
    everything = SMALL.graph_keys(SMALL.sample(3000, generator(0, "test")).prompt).unique()
    assert len(everything) == 60
    with pytest.raises(ConfigError, match=r"50 redraws found no graph outside the test set; raise task.n_values"):
        sample_unseen(SMALL, 4, generator(0, "data"), everything)


def test_contains_agrees_with_a_python_set():
    """Guards against errors at the ends of the sorted list: a query below the first or above the last key."""
    draws = generator(0, "probe")
    keys = torch.randint(-50, 50, (20,), generator=draws).unique()
    queries = torch.arange(-60, 60)
    assert splits._contains(keys, queries).tolist() == [q in set(keys.tolist()) for q in queries.tolist()]
    assert not splits._contains(keys[:0], queries).any()


# ------------------------------------------------------------------ online


def test_an_online_batch_depends_on_seed_and_step_alone():
    """Guards against batches that depend on earlier ones: step 3 is the same out of order, twice, or from another object."""
    first, second = small_splits(TASK).train, small_splits(TASK).train
    assert isinstance(first, Online)
    third = first.batch(3)
    second.batch(8)
    torch.rand(5)
    assert torch.equal(second.batch(3).prompt, third.prompt)
    assert torch.equal(first.batch(3).target, third.target)
    assert not torch.equal(first.batch(4).prompt, third.prompt)
    assert not torch.equal(small_splits(TASK, seed=1).train.batch(3).prompt, third.prompt)


def test_the_test_set_depends_on_the_seed_alone():
    """All regimes and batch sizes of a seed are scored on the same rows."""
    reference = small_splits(TASK).test
    for changes in ({"batch_size": 8}, {"train_graphs": 100}, {"targets_per_graph": 2}):
        assert torch.equal(small_splits(TASK, **changes).test.prompt, reference.prompt)
    assert not torch.equal(small_splits(TASK, seed=1).test.prompt, reference.prompt)


@pytest.mark.parametrize("train_graphs", [None, 32])
def test_training_does_not_repeat_the_test_draws(monkeypatch: pytest.MonkeyPatch, train_graphs: int | None):
    """Guards against one stream for both: the check would then replace all of step 0. Without it, nothing is the same."""
    monkeypatch.setattr(splits, "_contains", lambda keys, queries: torch.zeros_like(queries, dtype=torch.bool))
    made = small_splits(TASK, test_graphs=32, train_graphs=train_graphs)
    train = made.train.batch(0) if train_graphs is None else made.train.all_rows()
    assert len(train.prompt) == len(made.test.prompt)
    assert (train.prompt != made.test.prompt).any(1).all()


@pytest.mark.parametrize("targets_per_graph", [1, 2])
def test_online_batches_have_the_size_asked_for(targets_per_graph: int):
    """Guards against a batch size that counts graphs. It counts rows, also if a graph gives several."""
    stream = small_splits(TASK, batch_size=6, targets_per_graph=targets_per_graph).train
    assert len(stream.batch(0).prompt) == len(stream.batch(0).target) == 6
    assert len(edge_sets(TASK, stream.batch(0))) == 6 // targets_per_graph
    assert stream.all_rows() is None


def test_a_batch_that_would_split_a_graph_is_refused():
    with pytest.raises(ValueError, match="batch_size=7 is not a multiple of targets_per_graph=2"):
        small_splits(TASK, batch_size=7, targets_per_graph=2)


# ------------------------------------------------------------------ fixed


def fixed(n_rows: int = 50, batch_size: int = 8) -> Fixed:
    stream = small_splits(TASK, train_graphs=n_rows, batch_size=batch_size).train
    assert isinstance(stream, Fixed)
    assert len(stream.all_rows().prompt) == n_rows
    return stream


def as_rows(batch: Batch) -> list[tuple[int, ...]]:
    return [tuple(row) for row in torch.cat([batch.prompt, batch.target], 1).tolist()]


def test_an_epoch_visits_each_row_at_most_once():
    """Guards against drawing with replacement, and an epoch boundary in the wrong place: 50 rows give 6 batches of 8."""
    stream = fixed()
    rows = as_rows(stream.all_rows())
    assert len(set(rows)) == 50
    epochs = [[row for step in range(6 * e, 6 * e + 6) for row in as_rows(stream.batch(step))] for e in range(3)]
    for visited in epochs:
        assert len(visited) == len(set(visited)) == 48
        assert set(visited) <= set(rows)
    assert epochs[0] != epochs[1] != epochs[2]
    assert set().union(*epochs) == set(rows), "the rows that an epoch drops have to change"


def test_a_whole_number_of_batches_visits_every_row():
    stream = fixed(n_rows=48)
    assert sorted(row for step in range(6) for row in as_rows(stream.batch(step))) == sorted(as_rows(stream.all_rows()))


def test_fixed_batches_depend_on_seed_and_step_alone():
    """Guards against errors of the cached order: steps out of order, back and forth over epochs, give the same rows."""
    in_order = [as_rows(fixed().batch(step)) for step in range(18)]
    stream = fixed()
    for step in (17, 0, 6, 5, 17, 11, 12, 1, 6):
        assert as_rows(stream.batch(step)) == in_order[step]
    other = small_splits(TASK, train_graphs=50, batch_size=8, seed=1).train
    assert as_rows(other.batch(0)) != in_order[0]


def test_prompt_and_target_of_a_row_stay_together():
    batch = fixed().batch(3)
    assert (TASK.verify(batch.prompt, batch.target) == 0).all()


def test_targets_per_graph_multiplies_the_rows():
    stream = small_splits(TASK, train_graphs=20, targets_per_graph=2, batch_size=8).train
    assert len(stream.all_rows().prompt) == 40
    assert len(edge_sets(TASK, stream.all_rows())) == 20


def test_a_set_smaller_than_a_batch_is_refused():
    with pytest.raises(ValueError, match="7 training rows do not fill one batch: batch_size=8"):
        small_splits(TASK, train_graphs=7, batch_size=8)


def test_batch_rows_and_to_keep_prompt_and_target_aligned():
    batch = fixed().all_rows()
    part = batch.rows(3, 9)
    assert torch.equal(part.prompt, batch.prompt[3:9])
    assert torch.equal(part.target, batch.target[3:9])
    moved = part.to("cpu")
    assert torch.equal(moved.prompt, part.prompt)
    assert torch.equal(moved.target, part.target)
