"""The race: samples of each seed, what was too few, the soonest first, and the runs that come after the lookups."""

import msgspec

from pitfalls.report import race
from pitfalls.results.kept import Result
from pitfalls.results.plans import Cell
from pitfalls.runs.counts import Count
from tests.kept_runs import a_result


def a_racer(*, model: str, optimizer: str | None, lookups: int | None, seed: int = 0) -> Result:
    """Return a run of 10,000 samples with an evaluation each 1,000, whose lookups are learned after ``lookups`` samples."""
    run = a_result(500, seed, label=model, model=model, cell=f"{model}_{optimizer}", curve=[0] * 11, samples=10_000, flops=2e9)
    points = [
        msgspec.structs.replace(
            point,
            evaluation=msgspec.structs.replace(
                point.evaluation,
                forced_position_accuracy=[Count(1000 if lookups is not None and point.samples >= lookups else 900, 1000)] * 5,
            ),
        )
        for point in run.curve
    ]
    config = msgspec.structs.replace(run.config, training=run.config.training | {"stop_metric": "other_positions"})
    if optimizer:
        config = msgspec.structs.replace(config, optimizer={"name": optimizer})
    return Result(msgspec.structs.replace(run.record, config=config), tuple(points), run.cell)


RACERS = [
    a_racer(model="gpt_slim", optimizer=None, lookups=9000),
    a_racer(model="gpt_slim", optimizer=None, lookups=None, seed=1),
    a_racer(model="gpt_conv", optimizer="muon", lookups=2000),
    a_racer(model="gpt_conv", optimizer="muon", lookups=3000, seed=1),
]


def solver() -> Result:
    run = a_result(990, objective="reversed", curve=[0, 500, 990])
    return Result(run.record, run.curve, Cell("reversed_g2_5", "sooner", (), "reversed", {}, (0,)))


def test_the_soonest_comes_first_and_too_few_samples_are_marked():
    """Guards against a seed without lookups that counts as one with the samples of its budget."""
    table = race.lookups(RACERS)
    assert [row[1:5] for row in table.rows] == [
        ("gpt_conv", "Muon", "100", "2.0, 3.0"),
        ("gpt_slim", "AdamW", "100", "9.0, >10"),
    ]
    assert table.rows[0][6] == "20.0, 20.0", "2 GFLOP a sample, 10,000 samples"


def test_runs_that_are_trained_to_solve_are_in_the_second_table_only():
    tables = race.tables([*RACERS, solver()])
    assert len(tables["lookups"].rows) == 2
    assert tables["after"].rows == (("G(2,5), 50", "reversed", "0.0", "2.0"),)


def test_the_figure_has_a_row_for_each_trunk_and_a_cross_for_each_miss():
    figure = race.draw([*RACERS, solver()])
    (panel,) = figure.axes
    assert [label.get_text() for label in panel.get_yticklabels()] == ["gpt_slim, AdamW, batch 100", "gpt_conv, Muon, batch 100"]
    marks = sorted((line.get_marker(), float(line.get_xdata()[0])) for line in panel.lines)
    assert marks == [("o", 2.0), ("o", 3.0), ("o", 9.0), ("x", 10.0)]
    assert race.draw([solver()]) is None
