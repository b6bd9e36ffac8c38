"""Sweeps that survive: checked as a whole before job 0, finished runs left out, failures told at once and tried again next time.

It lives here because hydra takes plugins from the ``hydra_plugins`` namespace alone, and finds them there by itself.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser

from pitfalls.runs.sweeps import Job, Sweep, SweepIncompleteError
from pitfalls.schemas import ConfigError

log = logging.getLogger(__name__)


@dataclass
class ResumingSweeperConfig:
    """Hydra's node for the sweeper; ``params`` may hold a sweep, as in hydra's basic sweeper."""

    _target_: str = "hydra_plugins.resuming_sweeper.ResumingSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None


ConfigStore.instance().store(group="hydra/sweeper", name="resuming", node=ResumingSweeperConfig, provider="pitfalls")


class ResumingSweeper(BasicSweeper):
    """Hydra's basic sweeper, for runs that are named by what is in them. Any launcher can run its jobs."""

    def sweep(self, arguments: list[str]) -> Any:
        """Check every job, launch those that are not finished and not trained elsewhere, and say how it ended.

        Raises:
            ConfigError: a job is impossible; names its overrides. No job was started.
            SweepIncompleteError: some runs did not finish; the same command goes on with them.
        """
        assert self.hydra_context is not None
        assert self.launcher is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        parsed = parser.parse_overrides([*self._parse_config(), *arguments])
        sweep = Sweep.of(list(self._checked(self.split_arguments(parsed, None)[0])))
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
        """Hand jobs to the launcher. A failed job has left its failure in its folder and stops no other one."""
        assert self.launcher is not None
        try:
            return self.launcher.launch(batch, initial_job_idx=first)
        except Exception as error:  # of a launcher whose worker was killed; its other jobs may have finished
            text = (str(error).strip() or "no message").splitlines()[0]
            log.error("the launcher ended with %s: %s (a killed worker may have run out of memory)", type(error).__name__, text)
            return []

    def _checked(self, jobs: Sequence[Sequence[str]]) -> Iterator[Job]:
        from pitfalls.experiment.hydra_app import to_config
        from pitfalls.experiment.run import check

        assert self.hydra_context is not None
        assert self.config is not None
        target = str(self.config.hydra.launcher._target_).lower()
        here = "slurm" not in target and "ray" not in target
        for job in map(list, jobs):
            try:
                config = to_config(self.hydra_context.config_loader.load_sweep_config(self.config, job))
                yield Job(tuple(job), check(config, trained_here=here))
            except ConfigError as error:
                raise ConfigError(f"job [{' '.join(job)}]: {error}; no job was started") from None
