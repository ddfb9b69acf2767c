"""The interfaces that tasks need of configured parts."""

from __future__ import annotations

from typing import Annotated, Protocol, TypeAlias

from torch import nn

from embfit.miner.miner import Mines
from embfit.records import Collection
from embfit.store import Store
from embfit.teacher import NoTeacher, Teaches
from embfit.type_hints import ChosenBy, Having


class Data(Protocol):
    """A source of documents, queries and judgements."""

    def load(self, store: Store) -> Collection:
        """Return the collection, with its splits cut and leaks removed."""


Miner: TypeAlias = Mines
"""What makes training examples with negatives."""

Teacher: TypeAlias = NoTeacher | Annotated[Teaches, Having("gives_scores")]
"""What is trained before the model, to give scores that it learns from; or nothing."""

EmbeddingLoss: TypeAlias = Annotated[nn.Module, Having("on_lists", False)]
"""A loss of vectors, for models that embed."""

ListLoss: TypeAlias = Annotated[nn.Module, Having("on_lists"), ChosenBy("loss=listwise or loss=binary")]
"""A loss of the scores of lists, for cross-encoders; one of a user's own says `on_lists = True`."""
