"""The `training` group: how long, how large, how fast an encoder is trained."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field
from torch import nn

from embfit.errors import ConfigError, UserError
from embfit.loss import Matryoshka
from embfit.model import Encoder, Kind, embed, tokenized
from embfit.records import DevQuality, TrainingSet
from embfit.store import Store
from embfit.tokens import Tokens
from embfit.training.batch_words import batch_words
from embfit.training.batches import ExampleArrays
from embfit.training.fit.plan import Fit
from embfit.training.grouping import Batching, ByDocument, BySource, Grouping, RandomGrouping, Topical
from embfit.training.guide import Guide, make_guide
from embfit.training.remining import Remining
from embfit.training.settings import TrainingSettings
from embfit.type_hints import Location

if TYPE_CHECKING:
    import pytorch_lightning as pl

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training(TrainingSettings):
    """Large-batch contrastive training with in-batch and mined negatives; `TrainingSettings` has the rest.

    Args:
        batch_size: how many examples (queries) a rank has in a batch; the documents of all ranks are each other's
            negatives.
        batching: which examples share a batch: any, those of one document, those of one source, or those with similar
            queries by the vectors of the encoder before training.
        guide: an encoder whose scores show which negatives are doubtful; these are masked. `base` is the encoder before
            training, anything else the folder or the Hub name of another; None masks none.
        guide_margin: a pair is doubtful when the guide scores it above the lowest positive of its query less this.
        remine_every: after so many epochs, negatives are mined again with the current model; None never mines again.
    """

    batch_size: Annotated[int, Field(ge=2)] = 64
    batching: Batching = "random"
    guide: Annotated[str | None, Location()] = None
    guide_margin: Annotated[float, Field(ge=-2, le=2)] = 0.0
    remine_every: Annotated[int, Field(ge=1)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.guide is None and self.guide_margin:
            raise ConfigError(
                f"training.guide_margin={self.guide_margin} has no guide; set training.guide=base, or leave it out"
            )

    def fit(
        self,
        encoder: Encoder,
        loss: nn.Module,
        training_set: TrainingSet,
        validate: Callable[[Encoder], DevQuality] | None,
        trainer: partial[pl.Trainer],
        store: Store,
        folder: Path,
        remine: Callable[[Encoder], TrainingSet] | None = None,
    ) -> Fit:
        """Train an encoder in place and leave the kept weights in it.

        Args:
            encoder: is trained in place; has the kept weights (without `validate`, the last) on return.
            loss: is called on vectors and relations.
            training_set: what the miner made.
            validate: returns an encoder's quality on the dev split.
            trainer: makes Lightning's Trainer from the arguments that this class adds.
            store: keeps tokens and vectors.
            folder: holds kept weights and checkpoints; an interrupted training that left them there is resumed and
                ends as it would have ended.
            remine: makes a new training set of the same queries with an encoder, for `remine_every`.

        Raises:
            ConfigError: as `check_loss`.
            UserError: the loss became NaN or lacks a teacher's scores, the kept weights could not be read back, or the
                trainer's devices cannot train together.
            KeyboardInterrupt: Ctrl-C; a checkpoint is in `folder`.
        """
        self.check_loss(encoder, loss)
        if self.remine_every is not None and remine is None:
            raise ValueError("remine_every needs remine: what mines again")

        from embfit.training.in_batch import InBatch, InBatchData  # Lightning takes seconds to import

        def tokens(kind: Kind) -> Tokens:
            return tokenized(encoder, training_set.collection, kind, store, encoder.training_length(kind))

        def data(examples: ExampleArrays, batch_size: int) -> InBatchData:
            check_teacher(loss, examples)
            return InBatchData(
                examples,
                tokens("query"),
                tokens("document"),
                self.grouping(encoder, examples, training_set, batch_size, store),
                self._guide(encoder, examples, training_set, store),
                Remining(remine, self.remine_every, examples, self.max_positives, folder)
                if remine is not None and self.remine_every is not None
                else None,
                batch_words(loss, training_set, store),
            )

        return self.fit_on(training_set, encoder, data, partial(InBatch, encoder, loss), validate, trainer, folder)

    def check_loss(self, encoder: Encoder, loss: nn.Module) -> None:
        """Refuse a loss that cannot train this encoder with these settings, before any work is done.

        Raises:
            ConfigError: it is made for cosines, and the encoder's vectors keep their length; it reads more dimensions
                than there are; it compares documents with each other, and each has many vectors; or a guide masks
                negatives, and it reads a teacher's scores alone.
        """
        _check_cosines(encoder, loss)
        parts = list(loss.modules())
        if not encoder.single and any(getattr(part, "document_document", False) for part in parts):
            raise ConfigError(
                "loss.document_document=true compares all vectors of each document with all of the others, which costs "
                "more than encoding them in late interaction; set it to false"
            )
        for prefixes in (part for part in parts if isinstance(part, Matryoshka)):
            try:
                prefixes.dims_of(encoder.width, encoder.single)
            except ValueError as error:
                raise ConfigError(str(error)) from error
        inmost = [part for part in parts if not list(part.children())]
        if self.guide is not None and all(getattr(part, "needs_teacher", False) for part in inmost):
            raise ConfigError(
                f"training.guide={self.guide} masks negatives, and {type(inmost[0]).__name__} learns from all that a "
                "teacher has scored; set training.guide=null, or loss=distill"
            )

    def grouping(
        self, encoder: Encoder, examples: ExampleArrays, training_set: TrainingSet, batch_size: int, store: Store
    ) -> Grouping:
        """Return which examples share a batch, as `batching` says.

        Args:
            encoder: embeds the queries, if similar ones share batches.
            examples: the examples to group.
            training_set: the training set that the examples were made of.
            batch_size: how many a batch has, at most.
            store: keeps those vectors.
        """
        if self.batching == "by_document":
            return ByDocument(examples.positives.values[examples.positives.offsets[:-1]], batch_size)
        if self.batching == "by_source":
            if not examples.sources.any():
                log.warning("training.batching=by_source: all examples are of one source, so any share a batch")
            return BySource(examples.sources, batch_size)
        if self.batching == "topical":
            rows, example_of = np.unique(examples.queries, return_inverse=True)  # [Q], [N]
            vectors = embed(encoder, training_set.collection, "query", store, rows=rows.tolist()).vectors.means()
            return Topical(vectors[example_of], batch_size)
        return RandomGrouping(len(examples), batch_size)

    def _guide(
        self, encoder: Encoder, examples: ExampleArrays, training_set: TrainingSet, store: Store
    ) -> Guide | None:
        if self.guide is None:
            return None
        rows = np.unique(examples.queries)
        return make_guide(self.guide, self.guide_margin, encoder, training_set.collection, rows, store)


def _check_cosines(encoder: Encoder, loss: nn.Module) -> None:
    cosine = next((part for part in loss.modules() if getattr(part, "on_cosines", False)), None)
    if cosine is not None and not encoder.normalizes:
        raise ConfigError(
            f"{type(cosine).__name__} is made for cosines here, and the model compares by dot products; set "
            "model.normalize=true, or train those: loss=infonce loss.temperature=1"
        )


def check_teacher(loss: nn.Module, examples: ExampleArrays) -> None:
    """Refuse a loss that needs a teacher's scores if the training set has none.

    Raises:
        UserError: the training set has none.
    """
    if not examples.has_teacher and any(getattr(part, "needs_teacher", False) for part in loss.modules()):
        raise UserError(
            "the loss learns from a teacher's scores, and the training set has none; choose a miner that scores, "
            "or loss=infonce"
        )
