"""Bi-encoders, as systems: the configured model, and any other one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from embfit.errors import ConfigError
from embfit.evaluator.systems.context import EvaluationContext
from embfit.model.encoder import Encoder
from embfit.model.pooling import Pooling
from embfit.model.pretrained import Pretrained
from embfit.records import Evaluation


@dataclass(frozen=True)
class ConfiguredSystem:
    """The model that the `model` group chooses, with exact search."""

    def evaluate(self, name: str, context: EvaluationContext) -> Evaluation:
        """Embed, search exactly and measure."""
        return context.evaluator.evaluate(name, context.encoder, context.collection, context.store, context.split)


@dataclass(frozen=True)
class DenseSystem:
    """Another model than the configured one, with exact search. What is None comes from the model's own folder.

    Args:
        path: a folder, or a name on the Hub.
        revision: branch, tag or commit on the Hub.
        pooling: how token embeddings become one vector.
        query_prompt: put in front of each query.
        document_prompt: put in front of each document.
        max_length: tokens read of a text.
    """

    path: str | None = None
    revision: str | None = None
    pooling: Pooling | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    max_length: Annotated[int, Field(ge=4)] | None = None

    def evaluate(self, name: str, context: EvaluationContext) -> Evaluation:
        """Load, embed, search exactly and measure; dimensions that only the configured model has are left out.

        Raises:
            ConfigError: no model is named.
        """
        return measure(name, self.pretrained(name, context.model).load(*context.devices), context)

    def pretrained(self, name: str, configured: Pretrained) -> Pretrained:
        """Return the model, computed with the attention and precision of the configured one."""
        if self.path is None:
            short = "tuned=FOLDER" if name == "tuned" else f"evaluator.systems.{name}.path=FOLDER_OR_NAME"
            raise ConfigError(f"evaluator.systems.{name}.path is not set; name the model: {short}")
        return replace(
            configured,
            path=self.path,
            revision=self.revision,
            sha256=None,
            pooling=self.pooling,
            query_prompt=self.query_prompt,
            document_prompt=self.document_prompt,
            max_length=self.max_length,
            normalize=None,
        )


def measure(name: str, encoder: Encoder, context: EvaluationContext) -> Evaluation:
    """Embed, search exactly and measure; dimensions that only the configured model has are left out."""
    dims = [dim for dim in context.evaluator.dims or () if dim <= encoder.width]
    evaluator = replace(context.evaluator, dims=dims or None)
    return evaluator.evaluate(name, encoder, context.collection, context.store, context.split)
