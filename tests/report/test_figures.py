"""Figures show what the records hold, and the same records give the same bytes."""

import math

import matplotlib
import pytest
from matplotlib.figure import Figure

from pitfalls.report import bench_figures, figures
from pitfalls.results.plotting import STYLES, save
from pitfalls.runs.probe_records import Probes
from tests.kept_runs import a_result, entropy

G = (2, 3, 20)
DRAWN = ("draw", "draw_positions", "draw_entropy")
CERTAIN = Probes(uncertainty=entropy(0.01, 0.7, 0.01))


def run(exact=500, seed=0, **changes):
    return a_result(exact, seed, **({"graph": G, "curve": (0, exact, exact), "probes": CERTAIN} | changes))


HOP = a_result(None, first_hop=510, others=None, graph=G, label="hop")


@pytest.mark.parametrize("draw", [getattr(drawn, name) for drawn in (figures, bench_figures) for name in DRAWN])
@pytest.mark.parametrize("kind", ["png", "svg"])
def test_figures_are_byte_identical_when_drawn_again(tmp_path, draw, kind):
    results = [run(), run(990, label="teacherless"), HOP]
    for name in ("a", "b"):
        save(draw(results, "t"), tmp_path / f"{name}.{kind}")
    assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    other = run(510, probes=Probes(uncertainty=entropy(0.3, 0.4, 0.3)))
    save(draw([other, *results[1:]], "t"), tmp_path / f"c.{kind}")
    assert (tmp_path / f"c.{kind}").read_bytes() != (tmp_path / f"a.{kind}").read_bytes()


def test_a_figure_without_data_is_not_drawn():
    assert figures.draw_entropy([HOP], "t") is None
    assert figures.draw_positions([HOP], "t") is not None, "the first hop can be read"
    assert figures.draw_entropy([HOP, run()], "t") is not None


def test_more_labels_on_a_graph_than_styles_make_a_crowd():
    """Guards against seventeen curves in one panel."""
    results = [run(label=f"objective {i}") for i in range(len(STYLES))]
    assert not figures.crowded([*results, run(seed=1, label="objective 0"), run(label="one more", graph=(3, 3, 20))])
    assert figures.crowded([*results, run(label="one more")])
    assert not figures.crowded([])


def test_a_curve_is_exact_match_or_the_first_hop_where_nothing_else_is_answered():
    assert figures.exact_match_curve(run(curve=(0, 400, 500))) == ([0.0, 1.0, 2.0], [0.0, 0.4, 0.5])
    assert figures.exact_match_curve(HOP) == ([10.0], [0.51])


def test_curves_are_drawn_into_the_axes_that_are_given():
    """Guards against a notebook's own figure and settings that a plot replaces."""
    axes = Figure().subplots()
    before = dict(matplotlib.rcParams)
    seeds = {"next token": [run(curve=(0, 400)), run(seed=1, curve=(0, 600))], "reversed": [run(1000, curve=(0, 1000))]}
    figures.plot_curves(axes, seeds)
    *lines, chance = axes.get_lines()
    assert [list(line.get_ydata()) for line in lines] == [[0, 0.4], [0, 0.6], [0, 1.0]]
    assert list(chance.get_ydata()) == [0.5, 0.5]
    assert lines[0].get_color() == lines[1].get_color() != lines[2].get_color()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["next token", "reversed"]
    assert dict(matplotlib.rcParams) == before


def test_positions_are_means_of_the_seeds_and_a_gap_where_nothing_is_answered():
    axes = Figure().subplots()
    figures.plot_positions(axes, {"next token": [run(400), run(600, 1)], "hop": [HOP]})
    assert [[bar.get_height() for bar in bars] for bars in axes.containers] == [[1.0, 0.5, 1.0], [0.51]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["start", "first hop", "goal"]


def test_entropy_stands_beside_ln_d():
    axes = Figure().subplots()
    figures.plot_entropy(axes, {"next token": [run(), run(seed=1, probes=Probes(uncertainty=entropy(0.03, 0.5, 0.03)))]})
    assert [bar.get_height() for bar in axes.containers[0]] == pytest.approx([0.02, 0.6, 0.02])
    assert list(axes.get_lines()[-1].get_ydata()) == [math.log(2)] * 2


def test_positions_over_training_have_a_line_each():
    axes = Figure().subplots()
    figures.plot_positions_over_training(axes, run(curve=(0, 400)))
    *lines, chance = axes.get_lines()
    assert [(line.get_label(), list(line.get_ydata())) for line in lines] == [
        ("start", [1, 1]),
        ("first hop", [0, 0.4]),
        ("goal", [1, 1]),
    ]
    assert list(chance.get_ydata()) == [0.5, 0.5]


def test_a_label_looks_the_same_in_every_panel():
    """Guards against a legend that is right for one graph only."""
    results = [run(label="a"), run(label="b"), run(label="b", graph=(3, 3, 20)), run(label="a", graph=(3, 3, 20))]
    panels = figures.draw(results, "t").axes[:2]
    colours = [{line.get_label(): line.get_color() for line in panel.get_lines()[:2]} for panel in panels]
    assert colours[0] == colours[1]
    assert set(colours[0]) == {"a", "b"}
    assert [panel.get_title() for panel in panels] == ["G(2,3), N=20", "G(3,3), N=20"]
