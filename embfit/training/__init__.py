"""The in-batch-negative trainer: batches of unique rows, gradient cache, validation, under Lightning."""

from embfit.training.fit.fit import Fit
from embfit.training.list_training import ListTraining
from embfit.training.training import Training

__all__ = ["Fit", "ListTraining", "Training"]
