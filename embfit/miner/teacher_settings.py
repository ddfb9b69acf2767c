"""Which cross-encoder scores for a miner, and how it is loaded: the same settings for every miner that has one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from embfit.errors import ConfigError
from embfit.hints import Location
from embfit.model import Encoder, Teacher, load_teacher
from embfit.model.precision import Precision


@dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """A cross-encoder that scores pairs of a query and a document.

    Args:
        model: the cross-encoder's folder or its name on the Hub.
        revision: a branch, tag or commit of the model on the Hub; None is its main branch.
        trust_remote_code: whether to run Python code that comes with the model.
        max_length: the tokens read of a pair; None is the cross-encoder's own limit, 512 at most.
        precision: the number format in which the cross-encoder computes.
    """

    model: Annotated[str | None, Location(required=True)] = None
    revision: str | None = None
    trust_remote_code: bool = False
    max_length: Annotated[int, Field(ge=8)] | None = None
    precision: Precision = "auto"

    def load_teacher(self, encoder: Encoder) -> Teacher:
        """Load the cross-encoder onto the device of an encoder.

        Raises:
            ConfigError: the configuration names no cross-encoder.
            UserError: the cross-encoder cannot be found or read.
        """
        if self.model is None:
            raise ConfigError("this miner needs a cross-encoder: miner.model=FOLDER_OR_NAME")
        device = str(encoder.device)
        return load_teacher(self.model, self.max_length, self.precision, device, self.revision, self.trust_remote_code)
