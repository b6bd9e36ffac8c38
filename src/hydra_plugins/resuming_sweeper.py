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
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        parsed = parser.parse_overrides([*self._parse_config(), *arguments])
        sweep = Sweep.of(list(self._checked(self.split_arguments(parsed, None)[0])))
        for runs_dir in sweep.by_folder():
            writable_folder(runs_dir, "runs_dir=")
        sweep.write()
        todo = [list(job.overrides) for job in sweep.to_train()]
        log.info("sweep %s of %d runs: %s", sweep.name, len(sweep.jobs), sweep.summary())
        results = []
        for batch in self.split_overrides_to_chunks(todo, self.max_batch_size) if todo else ():
            results.append(self._launch(batch, todo.index(batch[0])))
        log.info("sweep %s of %d runs: %s", sweep.name, len(sweep.jobs), sweep.summary())
        if missing := sweep.unfinished():
            raise SweepIncompleteError(
                f"{len(missing)} of {len(sweep.jobs)} runs are not finished: {sweep.summary()}; the first: {missing[0].text()}"
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

    def _checked(self, jobs: Sequence[Sequence[str]]) -> Iterator[Job]:
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
                run_dir = run_dir_of(resolve(config, trained_here=here))
            except ConfigError as error:
                raise ConfigError(f"job [{' '.join(job)}]: {error}; no job was started") from None
            yield Job(tuple(job), run_dir)
