"""`training=lists`: how long, how large, how fast a cross-encoder is trained."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from torch import nn

from embfit.errors import ConfigError, UserError
from embfit.model import CrossEncoder, tokenized_for_pairs
from embfit.records import DevQuality, TrainingSet
from embfit.store import Store
from embfit.training.batches import ExampleArrays
from embfit.training.fit.plan import Fit
from embfit.training.settings import TrainingSettings

if TYPE_CHECKING:
    import pytorch_lightning as pl

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ListTraining(TrainingSettings):
    """Training of a cross-encoder on lists of positives and mined negatives; `TrainingSettings` has the rest.

    Args:
        batch_size: how many lists (queries) a rank has in a batch.
        lr: the peak learning rate of AdamW, suited to a new head; 2e-5 is usual for a ranker that is already trained.
        negatives: how many negatives a list has, at most; drawn again each epoch when more were mined.
        folds: how many further cross-encoders are trained, each without a share of the queries and of their
            documents, so that none scores a query that it was trained on; None trains none.
        seed: decides order, drawing, dropout and folds.
    """

    epochs: Annotated[int, Field(ge=1)] = 2
    batch_size: Annotated[int, Field(ge=1)] = 16
    max_positives: Annotated[int, Field(ge=1)] = 1
    lr: Annotated[float, Field(gt=0)] = 2e-4
    negatives: Annotated[int, Field(ge=1)] = 8
    folds: Annotated[int, Field(ge=2)] | None = None

    def fit(
        self,
        ranker: CrossEncoder,
        loss: nn.Module,
        training_set: TrainingSet,
        validate: Callable[[CrossEncoder], DevQuality] | None,
        trainer: partial[pl.Trainer],
        store: Store,
        folder: Path,
    ) -> Fit:
        """Train a cross-encoder in place and leave the kept weights in it.

        Args:
            ranker: is trained in place; has the kept weights (without `validate`, the last) on return.
            loss: is called on scores and labels of lists.
            training_set: what the miner made.
            validate: returns a cross-encoder's quality on the dev split.
            trainer: makes Lightning's Trainer from the arguments that this class adds.
            store: keeps tokens.
            folder: holds kept weights and checkpoints; an interrupted training that left them there is resumed and
                ends as it would have ended.

        Raises:
            ConfigError: the loss compares vectors.
            UserError: no example has a negative, the loss became NaN, the kept weights could not be read back, or the
                trainer's devices cannot train together.
            KeyboardInterrupt: Ctrl-C; a checkpoint is in `folder`.
        """
        if not getattr(loss, "on_lists", False):
            raise ConfigError(
                f"{type(loss).__name__} is a loss of embeddings; choose loss=listwise or loss=binary "
                "(one of your own says on_lists = True)"
            )

        from embfit.training.lists import ListData, Lists  # Lightning takes seconds to import

        def data(examples: ExampleArrays, batch_size: int) -> ListData:
            _check_negatives(examples)
            collection = training_set.collection
            queries = tokenized_for_pairs(ranker, collection, "query", store)
            documents = tokenized_for_pairs(ranker, collection, "document", store)
            return ListData(examples, queries, documents, batch_size, self.negatives)

        return self.fit_on(training_set, ranker, data, partial(Lists, ranker, loss), validate, trainer, folder)


def _check_negatives(examples: ExampleArrays) -> None:
    """Refuse lists without any negative, and warn if some lists have none."""
    without = int((examples.negatives.lengths == 0).sum())
    if without == len(examples):
        raise UserError("no query has a negative, so no list has an order; choose a miner, such as miner=dense")
    if without:
        log.warning("%d of %d queries have no negative, and teach little or nothing", without, len(examples))
