"""Weights & Biases: runs on its server, or in the run's folder to be uploaded later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pytorch_lightning.loggers import WandbLogger

from embfit.errors import ConfigError
from embfit.logger.settings import run_name, settings


class WandB(WandbLogger):
    """Lightning's W&B logger; runs of one sweep are a group, and each ends with its training.

    Args:
        run: the run's folder, which also holds what W&B writes.
        sweep: the folder of the sweep that it belongs to, whose name is the group's; None outside one.
        project: under which W&B lists it.
        entity: user or team; None is the user's default.
        offline: write to the run's folder alone (`wandb sync RUN/wandb/offline-run-*` uploads it).

    Raises:
        ConfigError: W&B is not installed.
    """

    def __init__(
        self,
        run: str,
        sweep: str | None,
        project: str = "embfit",
        entity: str | None = None,
        offline: bool = False,
    ) -> None:
        group = run_name(sweep) if sweep else None
        try:
            super().__init__(
                name=run_name(run),
                save_dir=run,
                offline=offline,
                project=project,
                entity=entity,
                group=group,
                config={"run": str(Path(run).absolute()), "sweep": sweep},
            )
        except ModuleNotFoundError as error:
            raise ConfigError("logger=wandb needs W&B; install it with: pip install 'embfit[wandb]'") from error
        self._run = run
        self._told = False

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers; the first time also the configuration, which the run folder has by then."""
        if not self._told:
            self._told = True
            self.log_hyperparams(settings(self._run))
        super().log_metrics(metrics, step)

    def finalize(self, status: str) -> None:
        """End W&B's run: else the next job of a sweep, in the same process, would log into this one."""
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=0 if status == "success" else 1)
