"""Loggers that want more than Lightning gives them: an offline default, and runs that can be found by their sweep."""

from embfit.logger.mlflow_runs import MLflow
from embfit.logger.wandb_runs import WandB

__all__ = ["MLflow", "WandB"]
