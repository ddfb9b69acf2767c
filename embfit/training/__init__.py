"""The in-batch-negative trainer: batches of unique rows, gradient cache, validation, under Lightning."""

from embfit.training.training import Fit, Training

__all__ = ["Fit", "Training"]
