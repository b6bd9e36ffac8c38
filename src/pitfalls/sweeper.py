"""Sweeps: every job's config is composed and checked before the first job starts."""

from collections.abc import Sequence
from dataclasses import dataclass

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from pitfalls.experiment import ConfigError, to_config


@dataclass
class CheckedSweeperConfig:
    """Hydra's node for the sweeper; ``params`` may hold a sweep, as in hydra's basic sweeper."""

    _target_: str = "pitfalls.sweeper.CheckedSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None


class CheckedSweeper(BasicSweeper):
    """Hydra's basic sweeper, which refuses a sweep with an impossible job before job 0 runs."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Check all jobs of all batches, at the first batch.

        Raises:
            ConfigError: names the job's overrides and what is wrong with them.
        """
        if self.batch_index > 1:
            return
        assert self.overrides is not None
        assert self.hydra_context is not None
        for job in (list(job) for jobs in self.overrides for job in jobs):
            config = self.hydra_context.config_loader.load_sweep_config(self.config, job)
            try:
                to_config(config)
            except ConfigError as error:
                raise ConfigError(f"job [{' '.join(job)}]: {error}; no job was started") from None


def register() -> None:
    """Make ``hydra/sweeper: checked`` known to hydra."""
    Plugins.instance().register(CheckedSweeper)
    ConfigStore.instance().store(group="hydra/sweeper", name="checked", node=CheckedSweeperConfig, provider="pitfalls")
