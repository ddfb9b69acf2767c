"""Loggers that add to Lightning's: an offline default, the run's configuration, and the sweep that a run belongs to."""

from embfit.logger.mlflow_runs import MLflow
from embfit.logger.wandb_runs import WandB

__all__ = ["MLflow", "WandB"]
