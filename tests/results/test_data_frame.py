"""Finished runs as a data frame: the same numbers from a run's own folder and from its kept record."""

import math
from pathlib import Path

import pandas
import pytest
from matplotlib.figure import Figure

import pitfalls
from pitfalls.experiment.hydra_app import compose
from pitfalls.experiment.run import train_run
from pitfalls.results.kept import keep
from pitfalls.runs.run_folder import read_record
from pitfalls.schemas import ConfigError
from tests.tiny_runs import TINY

ROOT = Path(__file__).resolve().parents[2]
LAPTOP = ROOT / "results" / "laptop"


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs, and one that is not."""
    folder = tmp_path_factory.mktemp("runs")
    for objective in ("next_token", "first_hop"):
        train_run(compose([*TINY, f"objective={objective}", f"runs_dir={folder}"]), make_display=lambda _: [])
    (folder / "unfinished").mkdir()
    (folder / "sweeps").mkdir()
    return folder


def test_one_row_per_run_with_the_numbers_of_its_record(runs_dir: Path):
    """Guards against a share of the wrong count, and a position that moved by one."""
    table = pitfalls.records(runs_dir)
    assert sorted(table["objective"]) == ["first_hop", "next_token"]
    for name, row in table.iterrows():
        record = read_record(runs_dir / name)
        assert (row["seed"], row["samples_seen"], row["chance"], row["path_length"]) == (0, 96, 0.5, 3)
        for i, (forced, free) in enumerate(zip(record.test.forced, record.test.free, strict=True)):
            assert row[f"forced_{i}"] == pytest.approx(math.nan if forced is None else forced, nan_ok=True)
            assert row[f"free_{i}"] == pytest.approx(math.nan if free is None else free, nan_ok=True)
        exact = record.test.exact_match.share
        assert row["exact_match"] == pytest.approx(math.nan if exact is None else exact, nan_ok=True)


def test_kept_records_and_run_folders_give_the_same_table(runs_dir: Path, tmp_path: Path):
    """Guards against a notebook that works with one of the two only."""
    for run_dir in runs_dir.glob("*-*"):
        keep(run_dir, tmp_path / "a_set" / "records" / f"{run_dir.name}.json")
    expected = pitfalls.records(runs_dir)
    pandas.testing.assert_frame_equal(pitfalls.records(tmp_path), expected)
    pandas.testing.assert_frame_equal(pitfalls.records(str(tmp_path / "a_set")), expected)
    assert list(pitfalls.records(next(runs_dir.glob("*-*"))).index) == [next(runs_dir.glob("*-*")).name]


def test_only_config_keys_that_differ_are_columns():
    """Guards against a table of seventy columns that are the same in every row."""
    table = pitfalls.records(LAPTOP)
    assert "training.n_steps" in table
    assert "training.beta1" not in table
    assert "runs_dir" not in table
    assert [name for name in table if name.startswith("forced_")] == [f"forced_{i}" for i in range(5)]
    assert table["exact_match"].dtype == table["forced_4"].dtype == float


def test_a_run_of_several_sets_is_one_row():
    """Guards against a run that counts twice in a mean."""
    table = pitfalls.records(ROOT / "results")
    assert table.index.is_unique
    assert set(pitfalls.records(LAPTOP).index) < set(table.index)


def test_nothing_there_is_one_line(tmp_path: Path):
    """Guards against an empty table, whose columns are then missed one after the other."""
    for folder in (tmp_path, tmp_path / "nowhere", tmp_path / "sweeps"):
        with pytest.raises(ConfigError, match="no finished run there; give a folder of runs"):
            pitfalls.records(folder)


def test_plots_take_kept_runs_and_the_callers_axes():
    """Guards against a plot that opens a figure of its own, or wants more than a notebook has."""
    runs = [run for run in pitfalls.kept(LAPTOP) if run.config.graph == "G(2,3)"]
    seeds = pitfalls.grouped(runs, lambda run: run.objective)
    assert set(seeds) == {"first_hop", "next_token", "teacherless"}
    axes = Figure().subplots(2, 2)
    pitfalls.plot_curves(axes[0][0], seeds)
    pitfalls.plot_positions(axes[0][1], seeds)
    pitfalls.plot_entropy(axes[1][0], {"next token": seeds["next_token"]})
    pitfalls.plot_positions_over_training(axes[1][1], seeds["next_token"][0])
    assert all(panel.has_data() for panel in axes.flat)
