"""Figures look alike, repeat byte for byte, and leave the settings of whoever draws them alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from pitfalls.results.plotting import STYLES, entitle, save, style, subplots

ROOT = Path(__file__).resolve().parents[2]
IMPORTS = """
import sys
import matplotlib
matplotlib.use("pdf")
matplotlib.rcParams["font.size"] = 20
before = dict(matplotlib.rcParams)
import pitfalls.results.plotting
import pitfalls.report.folder
assert "matplotlib.pyplot" not in sys.modules, "pyplot picks a backend"
assert matplotlib.get_backend() == "pdf", matplotlib.get_backend()
changed = {name: value for name, value in matplotlib.rcParams.items() if before[name] != value}
assert not changed, changed
from tests.kept_runs import a_result
from pitfalls.report import figures
figure = figures.draw([a_result(500)], "t")
assert figure.axes[0].title.get_fontsize() < 20, "drawn with the caller's settings"
pitfalls.results.plotting.save(figure, pitfalls.results.plotting.Path(sys.argv[1]))
assert matplotlib.get_backend() == "pdf", matplotlib.get_backend()
changed = {name: value for name, value in matplotlib.rcParams.items() if before[name] != value}
assert not changed, changed
"""


def drawn(height=1.0):
    figure, axes = subplots(1, 1, figsize=(3, 2))
    axes.plot([0, 1], [0, height])
    return figure


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_importing_reports_and_drawing_leave_a_notebook_as_it_was(tmp_path, kind):
    """Guards against a backend forced on import, which switches a notebook's plots off, and settings that stay changed."""
    command = [sys.executable, "-c", IMPORTS, str(tmp_path / f"a.{kind}")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / f"a.{kind}").exists()


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_saved_figure_repeats(tmp_path, kind):
    for name, height in (("a", 1.0), ("b", 1.0), ("c", 0.9)):
        save(drawn(height), tmp_path / f"{name}.{kind}")
    a, b, c = ((tmp_path / f"{name}.{kind}").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_an_svg_has_no_date_and_short_numbers(tmp_path):
    save(drawn(), tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert "<dc:date>" not in text
    path = text.split(' d="', 1)[1].split('"')[0]
    assert all(len(number.partition(".")[2]) <= 2 for number in path.split())


def test_every_label_of_a_figure_has_its_own_style():
    """Guards against two curves that look alike: after six colours, dash, marker and hatch differ."""
    styles = [style(i) for i in range(36)]
    assert len(set(styles)) == 36
    assert len({looks[1:] for looks in styles[:6]}) == 6, "told apart in black and white"
    assert styles[:6] == list(STYLES)


def test_a_long_title_is_as_wide_as_its_figure():
    figure = drawn()
    entitle(figure, "word " * 20)
    assert max(map(len, figure.get_suptitle().splitlines())) <= 33
