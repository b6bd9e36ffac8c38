"""Growth is measured along one axis at a time, and its tables show the measured points."""

import math

import pytest

from benchmarks import step_scaling, timing
from pitfalls.experiment.config import resolve
from pitfalls.experiment.hydra_app import compose
from pitfalls.report import scaling_tables as report
from pitfalls.report.measurements import AttentionTime, Hardware, Scaling, ScalingPoint
from pitfalls.results.formats import to_markdown
from pitfalls.results.plotting import save
from pitfalls.schemas import ConfigError


def point(axis, value, step_s, peak_mb=100.0):
    return ScalingPoint(axis, value, 10 * value, step_s, step_s, step_s, peak_mb)


def measured(points, attention):
    return Scaling(
        base=["task=g2_5"],
        precision="bf16",
        points=points,
        attention=attention,
        largest=point("largest", 900, 2.0),
        rounds=3,
        load=0.1,
        commit="c0ffee0123",
        dirty=False,
        versions={},
        hardware=Hardware("a cpu", 2, "Linux"),
    )


def row(tokens, attention_s, mlp_s):
    return AttentionTime(5, tokens, attention_s, mlp_s)


def test_every_axis_goes_through_the_base():
    """Guards against curves that do not meet, so that nothing can be compared between them."""
    base = resolve(compose(list(step_scaling.BASE)))
    for key, values in step_scaling.AXES.values():
        group, name = key.split(".")
        assert getattr(getattr(base, group), name) in values


def test_a_point_is_a_real_step(tmp_path, monkeypatch):
    monkeypatch.setattr(step_scaling, "N_ROUNDS", 2)
    small = {"batch size": ("training.batch_size", (2, 4))}
    found = step_scaling.points(tmp_path, small)
    assert [(p.axis, p.value, p.tokens) for p in found] == [("batch size", 2, 31), ("batch size", 4, 31)]
    assert all(0 < p.lowest_s <= p.step_s <= p.highest_s for p in found)


def test_the_largest_graph_stays_below_the_limit(tmp_path, monkeypatch):
    """Guards against a point above the limit, and an endless search: memory is 1 MB per node of an arm here, sometimes more."""
    monkeypatch.setattr(timing, "reset_peak_memory", lambda: 0.0)
    asked = []

    def steps(overrides, n_steps, folder):
        asked.append(next(int(o.partition("=")[2]) for o in overrides if o.startswith("task.path_length")))
        return lambda: [1.0]

    class Line(step_scaling.Line):
        def run(self):
            super().run()
            self.process_mb = asked[-1] * (1.3 if len(asked) < 3 else 1.0)

    monkeypatch.setattr(step_scaling, "whole_steps", steps)
    monkeypatch.setattr(step_scaling, "Line", Line)
    for limit in (50.0, 300.0):
        asked.clear()
        found = step_scaling.largest_graph(limit, tmp_path)
        assert found.value == asked[-1]
        assert limit / 1.05**2 <= found.peak_mb <= limit


def test_a_system_that_does_not_tell_its_memory_is_refused_before_any_step(tmp_path, monkeypatch):
    monkeypatch.setattr(step_scaling, "peak_memory_mb", lambda: 0.0)
    monkeypatch.setattr(step_scaling, "points", None)
    with pytest.raises(ConfigError, match="run it on Linux"):
        step_scaling.measure(tmp_path)


def test_attention_and_mlp_of_the_same_blocks(monkeypatch):
    """The matrix products are those of all blocks but the last."""
    monkeypatch.setattr(step_scaling, "N_ROUNDS", 2)
    monkeypatch.setattr(step_scaling, "BASE", ("model=gpt_nano", "task=g2_3", "task.test_graphs=16", "training.batch_size=4"))
    (found,) = step_scaling.attention_by_length([3])
    assert (found.path_length, found.tokens) == (3, 17)
    assert found.attention_s > 0
    assert found.mlp_s > 0


def test_growth_is_the_exponent():
    points = [point("path length", 4, 1.0, 50), point("path length", 8, 4.0, 100), point("width", 64, 1.0)]
    rows = report.tables(measured(points, [row(10, 1, 2)]))["steps"].rows
    assert [(cells[3], cells[5]) for cells in rows] == [("-", "-"), ("2.00", "1.00"), ("-", "-")]


def test_where_attention_overtakes_is_between_the_rows():
    rows = [row(10, 1.0, 4.0), row(40, 4.0, 4.0 * math.sqrt(2)), row(160, 16.0, 8.0)]
    assert report.crossing(rows) == pytest.approx(40 * 4 ** (1 / 3))
    assert report.crossing(rows[:2]) is None
    tables = [report.tables(measured([point("width", 64, 1.0)], some))["attention"] for some in (rows, rows[2:], rows[:1])]
    for table, words in zip(tables, ("at 63 tokens", "at every length here, from 160 tokens", "at no length"), strict=True):
        assert words in to_markdown(table)


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_figure_is_byte_identical_when_drawn_again(tmp_path, kind):
    data = measured([point("width", 64, 1.0), point("width", 128, 2.0)], [row(10, 1, 2)])
    for name in ("a", "b"):
        save(report.draw(data), tmp_path / f"{name}.{kind}")
    assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
