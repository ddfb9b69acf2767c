"""MLflow: runs in one database, on this machine or on a server."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from pytorch_lightning.loggers import MLFlowLogger

from embfit.errors import ConfigError
from embfit.logger.settings import run_name, settings

SQLITE = "sqlite:///"


class MLflow(MLFlowLogger):
    """Lightning's MLflow logger, whose runs also record the configuration and the run folder.

    Args:
        run: the run's folder, which becomes the tag `embfit.run`.
        sweep: the folder of the sweep that the run belongs to, which becomes the tag `embfit.sweep`; None outside a
            sweep.
        experiment: the experiment under which MLflow lists the run.
        uri: the address of the database or the server.

    Raises:
        ConfigError: MLflow is not installed.
    """

    def __init__(
        self,
        run: str,
        sweep: str | None,
        experiment: str = "embfit",
        uri: str = "sqlite:///outputs/mlflow.db",
    ) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # embfit works offline
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # read when MLflow is imported
        logging.getLogger("alembic").setLevel(logging.WARNING)  # each new database is a page of lines
        logging.getLogger("pytorch_lightning.loggers.mlflow").setLevel(logging.ERROR)  # a new experiment is no warning
        if uri.startswith(SQLITE):
            Path(uri.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
        tags = {"embfit.run": str(Path(run).absolute())} | ({"embfit.sweep": sweep} if sweep else {})
        try:
            super().__init__(experiment_name=experiment, run_name=run_name(run), tracking_uri=uri, tags=tags)
        except ModuleNotFoundError as error:
            raise ConfigError("logger=mlflow needs MLflow; install it with: pip install 'embfit[mlflow]'") from error
        self._run = run
        self._config_logged = False

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers, and the first time also the configuration, which is in the run folder by then."""
        if not self._config_logged:
            self._config_logged = True
            self.log_hyperparams(settings(self._run))
        super().log_metrics(metrics, step)
