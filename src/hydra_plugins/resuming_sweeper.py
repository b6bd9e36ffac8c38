"""Sweeps: every job's config is composed and checked before the first job starts.

It lives here because hydra takes plugins from the ``hydra_plugins`` namespace alone, and finds them there by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore

from pitfalls.schemas import ConfigError


@dataclass
class CheckedSweeperConfig:
    """Hydra's node for the sweeper; ``params`` may hold a sweep, as in hydra's basic sweeper."""

    _target_: str = "hydra_plugins.checked_sweeper.CheckedSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None


ConfigStore.instance().store(group="hydra/sweeper", name="checked", node=CheckedSweeperConfig, provider="pitfalls")


class CheckedSweeper(BasicSweeper):
    """Hydra's basic sweeper, which refuses a sweep with an impossible job before job 0 runs."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Check all jobs of all batches, at the first batch.

        Raises:
            ConfigError: names the job's overrides and what is wrong with them.
        """
        from pitfalls.application import to_config

        if self.batch_index > 1:
            return
        assert self.overrides is not None
        assert self.hydra_context is not None
        assert self.config is not None
        for job in (list(job) for jobs in self.overrides for job in jobs):
            try:
                to_config(self.hydra_context.config_loader.load_sweep_config(self.config, job))
            except ConfigError as error:
                raise ConfigError(f"job [{' '.join(job)}]: {error}; no job was started") from None
