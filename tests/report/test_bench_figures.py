"""The figures of a crowded set: a panel per objective, and shades of the median seed."""

import itertools

from pitfalls.report import bench_figures
from pitfalls.runs.probe_records import Probes
from tests.kept_runs import a_result, entropy

G = (2, 3, 20)


def run(exact=500, seed=0, **changes):
    return a_result(exact, seed, **({"graph": G, "curve": (0, exact, exact)} | changes))


def test_longer_runs_of_an_objective_share_its_panel():
    """Guards against a longer run in a panel of its own, where nobody compares it."""
    results = [run(500), run(990, label="next token, longer"), run(500, objective="first_hop")]
    figure = bench_figures.draw(results, "t")
    panels = {panel.get_title(): panel for panel in figure.axes if panel.get_title()}
    assert list(panels) == ["next token", "first hop"]
    assert [list(line.get_ydata()) for line in panels["next token"].get_lines()] == [[0.5, 0.5], [0.99, 0.99], [0.5, 0.5]]


def test_a_curve_is_thinned_but_for_its_end():
    """Guards against a curve whose end or start is thinned away."""
    x, y = bench_figures.thinned(range(402), range(402))
    assert x[-1] == y[-1] == 401
    assert x[:15] == list(range(1, 16)), "a short distance late is a long one early"
    assert all(bench_figures.SPACING * a <= b for a, b in itertools.pairwise(x))


def shades(figure):
    """The numbers of each table, row by row, by its title."""
    tables = {}
    for panel in figure.axes:
        for text in panel.texts:
            x, y = text.get_position()
            tables.setdefault(panel.get_title(), {}).setdefault(y, {})[x] = text.get_text()
    return {title: [list(row.values()) for row in rows.values()] for title, rows in tables.items()}


def test_a_shade_is_of_a_run_that_happened():
    """Guards against a mean of seeds that solve a graph and seeds that do not. A dash is no 0."""
    seeds = [run(k, seed) for seed, k in enumerate((1000, 330, 990))]
    hop = a_result(None, first_hop=510, others=None, graph=G, label="hop")
    assert shades(bench_figures.draw_positions([*seeds, hop], "t")) == {
        "G(2,3), N=20": [["1.00", "0.99", "1.00"], ["-", "0.51", "-"]]
    }


def test_a_row_is_of_the_label_beside_it_on_every_graph():
    """Guards against rows that slip where a label was not trained on a graph."""
    results = [run(500, label="a"), run(900, label="b"), run(700, label="b", graph=(3, 3, 20))]
    figure = bench_figures.draw_positions(results, "t")
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["a", "b"]
    first, second = figure.axes[:2]
    assert [(text.get_text(), text.get_position()[1]) for text in first.texts if text.get_position()[0] == 1] == [
        ("0.50", 0),
        ("0.90", 1),
    ]
    assert [(text.get_text(), text.get_position()[1]) for text in second.texts if text.get_position()[0] == 1] == [("0.70", 1)]


def test_entropy_of_the_median_seed():
    def seed(exact, number, nats):
        return run(exact, number, probes=Probes(uncertainty=entropy(0.0, nats, 0.0)))

    figure = bench_figures.draw_entropy([seed(400, 0, 0.1), seed(500, 1, 0.69), seed(990, 2, 0.2)], "t")
    assert shades(figure) == {"G(2,3), N=20": [["0.00", "0.69", "0.00"]]}
