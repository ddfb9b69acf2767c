"""Teachers: models that are trained on a fine-tuning's own pairs first, and whose scores the encoder learns from."""

from embfit.teacher.cross_encoder import CrossEncoderTeacher
from embfit.teacher.no_teacher import NoTeacher
from embfit.teacher.trained import Teaches, TrainedTeacher

__all__ = ["CrossEncoderTeacher", "NoTeacher", "Teaches", "TrainedTeacher"]
