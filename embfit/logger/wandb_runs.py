"""Weights & Biases: runs on its server, or in the run's folder for a later upload."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pytorch_lightning.loggers import WandbLogger

from embfit.errors import ConfigError
from embfit.logger.settings import run_name, settings


class WandB(WandbLogger):
    """Lightning's W&B logger; the runs of one sweep form a group, and a W&B run ends with its training.

    Args:
        run: the run's folder, which also holds the files that W&B writes.
        sweep: the folder of the sweep that the run belongs to, which names the group; None outside a sweep.
        project: the project under which W&B lists the run.
        entity: the user or team that owns the run; None uses W&B's default.
        offline: whether to write to the run's folder only (`wandb sync RUN/wandb/offline-run-*` uploads it later).

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
        self._config_logged = False

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers, and the first time also the configuration, which is in the run folder by then."""
        if not self._config_logged:
            self._config_logged = True
            self.log_hyperparams(settings(self._run))
        super().log_metrics(metrics, step)

    def finalize(self, status: str) -> None:
        """End W&B's run; otherwise the next job of a sweep in this process would log into it."""
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=0 if status == "success" else 1)
