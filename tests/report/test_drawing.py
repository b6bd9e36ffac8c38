"""A figure is drawn again exactly when it could look different."""

import inspect
import types
from dataclasses import replace

import pytest

from pitfalls.report import drawing
from pitfalls.report.drawing import DIGESTS, Drawing, draw_all
from pitfalls.results import groups, kept, plotting
from pitfalls.results.plotting import subplots
from pitfalls.runs import counts, probe_records, records
from pitfalls.runs.files import read_json


class Figures:
    """One figure of a record and a module of its own, with a count of how often it was drawn."""

    def __init__(self, folder):
        self.record, self.source, self.n_drawn = folder / "record.json", folder / "module_of_figures.py", 0
        self.record.write_text("1")
        self.source.write_text("HEIGHT = 1\n")
        module = types.ModuleType("module_of_figures")
        module.__file__ = str(self.source)
        self.drawing = Drawing("set/figure", self.draw, (self.record,), (module,), ("a label",))

    def draw(self):
        self.n_drawn += 1
        figure, axes = subplots(1, 1, figsize=(2, 2))
        axes.plot([0, float(self.record.read_text())])
        return figure

    def bring_up_to_date(self, output, reference=None, **changes):
        """Return the number of files that were drawn."""
        before = self.n_drawn
        draw_all([replace(self.drawing, **changes)], output, reference or output)
        return self.n_drawn - before


@pytest.fixture
def made(tmp_path):
    return Figures(tmp_path)


def files(folder):
    return {path.name: path.read_bytes() for path in (folder / "set").iterdir()}


def test_what_has_not_changed_is_not_drawn_again(made, tmp_path):
    assert made.bring_up_to_date(tmp_path / "out") == 2, "a PNG and an SVG"
    before = files(tmp_path / "out")
    assert set(before) == {"figure.png", "figure.svg"}
    assert made.bring_up_to_date(tmp_path / "out") == 0
    assert files(tmp_path / "out") == before
    assert read_json(tmp_path / "out" / DIGESTS, dict[str, str]) == {"set/figure": made.drawing.digest()}


def test_a_changed_record_is_drawn(made, tmp_path):
    """Guards against a figure of the old records."""
    made.bring_up_to_date(tmp_path / "out")
    before = files(tmp_path / "out")
    made.record.write_text("2")
    assert made.bring_up_to_date(tmp_path / "out") == 2
    assert files(tmp_path / "out")["figure.png"] != before["figure.png"]


def test_changed_code_is_drawn(made, tmp_path):
    made.bring_up_to_date(tmp_path / "out")
    made.source.write_text("HEIGHT = 20\n")
    assert made.bring_up_to_date(tmp_path / "out") == 2


def test_changed_words_are_not_drawn(made, tmp_path):
    """Guards against minutes of drawing after every change of a docstring."""
    made.bring_up_to_date(tmp_path / "out")
    made.source.write_text('"""Words,\nwords."""\n\nHEIGHT = 1\n"""How high."""\n')
    assert made.bring_up_to_date(tmp_path / "out") == 0
    made.source.write_text('"""Words,\nwords."""\n\nHEIGHT = 2\n"""How high."""\n')
    assert made.bring_up_to_date(tmp_path / "out") == 2


@pytest.mark.parametrize("module", [counts, probe_records, records, groups, kept, plotting], ids=lambda module: module.__name__)
def test_changed_code_that_all_figures_share_is_drawn(made, tmp_path, monkeypatch, module):
    """Guards against old figures after the change of a rule, such as when a run counts as solved."""
    made.bring_up_to_date(tmp_path / "out")
    source = inspect.getsource
    monkeypatch.setattr(inspect, "getsource", lambda one: source(one) + "CHANGED = 1\n" * (one is module))
    assert made.bring_up_to_date(tmp_path / "out") == 2


def test_a_changed_label_is_drawn(made, tmp_path):
    made.bring_up_to_date(tmp_path / "out")
    assert made.bring_up_to_date(tmp_path / "out", labels=("another label",)) == 2


def test_another_matplotlib_draws_again(made, tmp_path, monkeypatch):
    made.bring_up_to_date(tmp_path / "out")
    monkeypatch.setattr(drawing.matplotlib, "__version__", "0")
    assert made.bring_up_to_date(tmp_path / "out") == 2


def test_what_the_reference_has_is_copied_byte_by_byte(made, tmp_path):
    """Guards against minutes of drawing for figures that are there already."""
    made.bring_up_to_date(tmp_path / "reference")
    assert made.bring_up_to_date(tmp_path / "out", tmp_path / "reference") == 0
    assert files(tmp_path / "out") == files(tmp_path / "reference")
    assert made.bring_up_to_date(tmp_path / "out") == 0, "a copy is as good as a figure that was drawn"


def test_an_old_reference_is_not_copied(made, tmp_path):
    made.bring_up_to_date(tmp_path / "reference")
    before = files(tmp_path / "reference")
    made.record.write_text("2")
    assert made.bring_up_to_date(tmp_path / "out", tmp_path / "reference") == 2
    assert files(tmp_path / "reference") == before, "nobody asked for a change of the reference"
    assert read_json(tmp_path / "reference" / DIGESTS, dict[str, str]) != read_json(tmp_path / "out" / DIGESTS, dict[str, str])


@pytest.mark.parametrize("suffix", ["png", "svg"])
@pytest.mark.parametrize("folder", ["out", "reference"])
def test_a_file_that_is_gone_is_drawn(made, tmp_path, folder, suffix):
    """Guards against a figure of which half is there, for ever."""
    made.bring_up_to_date(tmp_path / folder)
    (tmp_path / folder / "set" / f"figure.{suffix}").unlink()
    assert made.bring_up_to_date(tmp_path / "out", tmp_path / "reference") == 2
    assert set(files(tmp_path / "out")) == {"figure.png", "figure.svg"}


@pytest.mark.parametrize("text", ["{", "[]", '{"set/figure": 1}'])
def test_a_broken_list_of_digests_is_written_again(made, tmp_path, text):
    made.bring_up_to_date(tmp_path / "out")
    (tmp_path / "out" / DIGESTS).write_text(text)
    assert made.bring_up_to_date(tmp_path / "out") == 2
    assert made.bring_up_to_date(tmp_path / "out") == 0


def test_nothing_to_show_is_no_file(made, tmp_path):
    """Guards against a figure of runs that are gone."""
    made.bring_up_to_date(tmp_path / "out")
    made.record.write_text("2")
    made.bring_up_to_date(tmp_path / "out", draw=lambda: None)
    assert files(tmp_path / "out") == {}


def test_several_figures_are_drawn_by_several_processes(made, tmp_path):
    """Guards against bytes that depend on the process that draws."""
    one = made.drawing
    other = replace(one, name="set/other", draw=_other)
    draw_all([one, other], tmp_path / "several", tmp_path / "several")
    draw_all([other], tmp_path / "alone", tmp_path / "alone")
    assert set(files(tmp_path / "several")) == {"figure.png", "figure.svg", "other.png", "other.svg"}
    assert files(tmp_path / "alone").items() <= files(tmp_path / "several").items()


def _other():
    figure, axes = subplots(1, 1, figsize=(2, 2))
    axes.plot([0, 3, 1])
    return figure
