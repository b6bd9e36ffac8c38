"""Sweeps that can be stopped and continued. All jobs are checked before the first one, and finished runs are left out.

A failed run is reported at once and tried again by the next call. Hydra finds plugins in the ``hydra_plugins`` namespace only.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from joblib import cpu_count

from pitfalls.experiment.cli import writable_folder
from pitfalls.runs.sweeps import Job, Sweep, SweepIncompleteError
from pitfalls.schemas import ConfigError

log = logging.getLogger(__name__)

REMOTE_LAUNCHERS = (
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher",
    "hydra_plugins.hydra_ray_launcher.ray_aws_launcher.RayAWSLauncher",
)
"""Launchers whose jobs may run on another machine, with devices that this one lacks."""


JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
SUBMITIT_LOCAL = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher"


def runs_at_a_time(launcher: Any, n_jobs: int) -> int:
    """Return how many runs train at a time on this machine, by hydra's config of the launcher. 0 means elsewhere or unknown."""
    if launcher._target_ == JOBLIB:
        n_workers = launcher.n_jobs
        return min(n_jobs, n_workers if n_workers > 0 else max(1, cpu_count() + 1 + n_workers))
    if launcher._target_ == SUBMITIT_LOCAL:
        return n_jobs  # all at once
    return min(n_jobs, 1) if launcher._target_.endswith(".BasicLauncher") else 0


def too_many_threads(n_runs: int, n_threads: int, n_cores: int) -> str | None:
    """Return a warning if runs that train at a time have more threads than there are cores, or None.

    Nothing is changed by itself: the number of threads is part of a run's identity (docs/determinism.md).
    """
    if n_runs * n_threads <= n_cores or n_threads == 1:
        return None
    return (
        f"{n_runs} runs at a time with {n_threads} threads each are more than {n_cores} cores, and slow each other down: "
        f"stop, and say training.n_threads={max(1, n_cores // n_runs)} (the number of threads is part of a run's identity)"
    )


@dataclass
class ResumingSweeperConfig:
    """Hydra's config of the sweeper. ``params`` may hold a sweep, as in hydra's basic sweeper."""

    _target_: str = "hydra_plugins.resuming_sweeper.ResumingSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None


ConfigStore.instance().store(group="hydra/sweeper", name="resuming", node=ResumingSweeperConfig, provider="pitfalls")


class ResumingSweeper(BasicSweeper):
    """Hydra's basic sweeper, for runs that are named by their configs. Any launcher can run its jobs."""

    def sweep(self, arguments: list[str]) -> Any:
        """Check every job, launch those that are not finished and not trained elsewhere, and report how the sweep ended.

        Raises:
            ConfigError: a job is impossible. The message holds its overrides. No job was started.
            SweepIncompleteError: some runs did not finish. The same command continues with them.
        """
        assert self.hydra_context is not None
        assert self.launcher is not None
        assert self.config is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        parsed = parser.parse_overrides([*self._parse_config(), *arguments])
        checked = list(self._checked(self.split_arguments(parsed, None)[0]))
        sweep = Sweep.of([job for job, _ in checked])
        for runs_dir in sweep.by_folder():
            writable_folder(runs_dir, "runs_dir=")
        sweep.write()
        todo = [list(job.overrides) for job in sweep.to_train()]
        log.info("sweep %s of %d runs: %s", sweep.name, len(sweep.jobs), sweep.summary())
        n_runs = runs_at_a_time(self.config.hydra.launcher, len(todo))
        if warning := too_many_threads(n_runs, max(n_threads for _, n_threads in checked), cpu_count()):
            log.warning(warning)
        results = []
        for batch in self.split_overrides_to_chunks(todo, self.max_batch_size) if todo else ():
            results.append(self._launch(batch, todo.index(batch[0])))
        log.info("sweep %s of %d runs: %s", sweep.name, len(sweep.jobs), sweep.summary())
        if missing := sweep.unfinished():
            raise SweepIncompleteError(
                f"{len(missing)} of {len(sweep.jobs)} runs are not finished: {sweep.summary()}; the first: {missing[0].text()}; "
                f"the same command goes on with them, and scripts/status.py --failed says why a run failed"
            )
        return results

    def _launch(self, batch: Sequence[Sequence[str]], first: int) -> Any:
        """Hand jobs to the launcher. A failed job leaves ``failure.json`` in its folder and stops no other job."""
        assert self.launcher is not None
        try:
            return self.launcher.launch(batch, initial_job_idx=first)
        except Exception as error:  # the error of a launcher whose worker was killed: its other jobs may have finished
            text = (str(error).strip() or "no message").splitlines()[0]
            log.error("the launcher ended with %s: %s (a killed worker may have run out of memory)", type(error).__name__, text)
            return []

    def _checked(self, jobs: Sequence[Sequence[str]]) -> Iterator[tuple[Job, int]]:
        """Yield every job with its number of CPU threads."""
        from pitfalls.experiment.config import resolve, run_dir_of
        from pitfalls.experiment.hydra_app import check_folder_stays, explained, to_config

        assert self.hydra_context is not None
        assert self.config is not None
        check_folder_stays(self.config.hydra)
        here = self.config.hydra.launcher._target_ not in REMOTE_LAUNCHERS
        for job in map(list, jobs):
            try:
                with explained(job):
                    config = to_config(self.hydra_context.config_loader.load_sweep_config(self.config, job))
                config = resolve(config, trained_here=here)
            except ConfigError as error:
                raise ConfigError(f"job [{' '.join(job)}]: {error}; no job was started") from None
            yield Job(tuple(job), run_dir_of(config)), config.training.n_threads
