"""Sweeps that are checked for the devices of this machine, and sweeps that are not."""

from types import SimpleNamespace

import pytest
from joblib import cpu_count
from omegaconf import OmegaConf

from hydra_plugins.resuming_sweeper import (
    JOBLIB,
    REMOTE_LAUNCHERS,
    SUBMITIT_LOCAL,
    ResumingSweeper,
    runs_at_a_time,
    too_many_threads,
)
from pitfalls.experiment.hydra_app import _composed
from pitfalls.schemas import ConfigError
from tests.tiny_runs import TINY

ELSEWHERE = ["training.device=cuda", "training.precision=bf16"]
"""A run that the machine of these tests cannot train."""


def checked(target: str, overrides: list[str], chdir: bool = False) -> list:
    """Check the jobs of a sweep under a launcher, as before the first one starts."""
    sweeper = ResumingSweeper.__new__(ResumingSweeper)
    composed = _composed([*TINY, *overrides])
    sweeper.config = OmegaConf.create({"hydra": {"launcher": {"_target_": target}, "job": {"chdir": chdir}}})
    sweeper.hydra_context = SimpleNamespace(config_loader=SimpleNamespace(load_sweep_config=lambda config, job: composed))
    return list(sweeper._checked([overrides]))


@pytest.mark.parametrize("target", REMOTE_LAUNCHERS)
def test_a_job_for_another_machine_may_name_a_device_that_is_not_here(target, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert len(checked(target, ELSEWHERE)) == 1


@pytest.mark.parametrize(
    "target",
    [
        "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
        "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
        "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
        "my_plugins.array_launcher.ArrayLauncher",
    ],
)
def test_a_job_for_this_machine_needs_its_device_here(target, monkeypatch):
    """Guards against a launcher that has "ray" somewhere in its name: its jobs were sent out unchecked, and failed one by one."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"torch sees no CUDA device.*no job was started"):
        checked(target, ELSEWHERE)


def test_a_sweep_stays_in_its_folder():
    """Guards against runs in rel/rel, of which the sweep then says that they wait."""
    with pytest.raises(ConfigError, match=r"hydra.job.chdir=true: .*leave it out"):
        checked("hydra._internal.core_plugins.basic_launcher.BasicLauncher", [], chdir=True)


@pytest.mark.parametrize(
    ("launcher", "n_jobs", "n_runs"),
    [
        ({"_target_": JOBLIB, "n_jobs": 2}, 6, 2),
        ({"_target_": JOBLIB, "n_jobs": 4}, 3, 3),
        ({"_target_": JOBLIB, "n_jobs": -1}, 99, cpu_count()),
        ({"_target_": SUBMITIT_LOCAL}, 6, 6),
        ({"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}, 6, 1),
        ({"_target_": REMOTE_LAUNCHERS[0]}, 6, 0),
    ],
)
def test_how_many_runs_train_at_a_time(launcher, n_jobs: int, n_runs: int):
    assert runs_at_a_time(OmegaConf.create(launcher), n_jobs) == n_runs


def test_more_threads_than_cores_are_told():
    """Guards against two runs of two threads on two cores, each many times slower than alone, without a word."""
    assert "training.n_threads=1 (the number" in too_many_threads(2, 2, 2)
    assert "training.n_threads=2 (the number" in too_many_threads(2, 8, 4)
    fits = ((1, 2, 2), (2, 1, 2), (2, 2, 4), (0, 2, 1), (8, 1, 2))
    assert [too_many_threads(*numbers) for numbers in fits] == [None] * 5


def test_remote_launchers_have_the_names_that_their_plugins_use():
    """Guards against a plugin that renames its class: every job for another machine would be refused here."""
    plugin = pytest.importorskip("hydra_plugins.hydra_submitit_launcher.config")
    assert plugin.SlurmQueueConf._target_ in REMOTE_LAUNCHERS
    assert plugin.LocalQueueConf._target_ == SUBMITIT_LOCAL
    assert pytest.importorskip("hydra_plugins.hydra_joblib_launcher.config").JobLibLauncherConf._target_ == JOBLIB
