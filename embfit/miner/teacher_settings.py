"""Which model scores for a miner, and how it is loaded: the same settings for every miner that has one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from embfit.errors import ConfigError
from embfit.model import Encoder, EncoderTeacher, Teacher, load_teacher
from embfit.model.precision import Precision
from embfit.type_hints import Location


@dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """A model that scores pairs of a query and a document: a cross-encoder, a late-interaction model or a bi-encoder.

    Args:
        model: the model's folder or its name on the Hub.
        revision: a branch, tag or commit of the model on the Hub; None is its main branch.
        trust_remote_code: whether to run Python code that comes with the model.
        max_length: the tokens that a cross-encoder reads of a pair; None is its own limit, 512 at most.
        precision: the number format in which the model computes.
    """

    model: Annotated[str | None, Location(required=True)] = None
    revision: str | None = None
    trust_remote_code: bool = False
    max_length: Annotated[int, Field(ge=8)] | None = None
    precision: Precision = "auto"

    def load_teacher(self, encoder: Encoder) -> Teacher | EncoderTeacher:
        """Load the model onto the device of an encoder.

        Raises:
            ConfigError: the configuration names no model, or `max_length` for one that reads texts alone.
            UserError: the model cannot be found or read.
        """
        if self.model is None:
            raise ConfigError("this miner needs a model that scores pairs: miner.model=FOLDER_OR_NAME")
        device = str(encoder.device)
        return load_teacher(self.model, self.max_length, self.precision, device, self.revision, self.trust_remote_code)
