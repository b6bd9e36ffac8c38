"""Waiting times are measured with real commands. These tests do not check how long they are."""

from types import SimpleNamespace

import pytest

from benchmarks import startup


def test_a_job_more_is_the_difference_of_two_sweeps_without_its_training(tmp_path, monkeypatch):
    """Guards against the start of Python, or the training, in the cost of a job. A sweep of n jobs takes 2 + 3 n seconds here."""

    def sweep(arguments):
        folder = arguments[3].removeprefix("runs_dir=")
        seeds = arguments[2].removeprefix("seed=").split(",")
        for seed in seeds:
            run = tmp_path / "sweep" / folder / seed
            run.mkdir(parents=True)
            (run / "record.json").touch()
        return 2.0 + 3.0 * len(seeds)

    monkeypatch.setattr(startup, "_seconds", sweep)
    monkeypatch.setattr(startup.run_folder, "read_summary", lambda run: SimpleNamespace(wall_s=1.0))
    measure = startup.one_job_more(tmp_path / "sweep")
    assert measure() == [2.0]
    assert measure() == [2.0], "the runs of the round before are gone, or none would be trained"


@pytest.mark.slow
def test_every_wait_is_measured(tmp_path):
    for line in startup.lines(1, tmp_path):
        line.run()
        assert line.values[0][0] > 0, line.name


def test_a_command_that_fails_is_no_time(monkeypatch):
    monkeypatch.setattr(startup, "TRAIN", "no_such_file.py")
    with pytest.raises(RuntimeError, match="no_such_file"):
        startup.asking_for_help()
