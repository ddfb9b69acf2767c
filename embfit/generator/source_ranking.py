"""Whether a cross-encoder, too, ranks a query's document first among those that a search finds for it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from embfit.model import load_teacher
from embfit.model.precision import Precision
from embfit.ragged import Ragged
from embfit.records import Collection
from embfit.store import Store
from embfit.type_hints import Location

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CrossEncoderFilter:
    """Has a cross-encoder put the documents that a query finds in order, the query's own among them.

    The second half of CADET's filter (Tamber et al. 2025): the document is among the first twenty of a search, and the
    first of those for the cross-encoder.

    Args:
        model: the cross-encoder, or a late-interaction model: a folder, or a name on the Hub; None asks for none.
        revision: branch, tag or commit on the Hub.
        trust_remote_code: whether to run Python code that comes with the model.
        max_length: the tokens that a cross-encoder reads of a pair; None is its own limit, 512 at most.
        precision: the number format in which it computes.
        rank: the rank that the query's document must reach.
        candidates: the number of documents of each of the filters' rankers that it is ranked among.
    """

    model: Annotated[str | None, Location()] = None
    revision: str | None = None
    trust_remote_code: bool = False
    max_length: Annotated[int, Field(ge=8)] | None = None
    precision: Precision = "auto"
    rank: Annotated[int, Field(ge=1)] = 1
    candidates: Annotated[int, Field(ge=1, le=100)] = 20

    def source_ranks(
        self,
        asked: Collection,
        places: Sequence[int],
        sources: Sequence[int],
        found: Mapping[str, np.ndarray],
        device: str,
        store: Store,
    ) -> list[int]:
        """Return the ranks of documents among those that searches found for the queries written about them.

        Args:
            asked: all generated queries, and the documents: the store keeps scores by both, so that other thresholds
                score no pair again.
            places: the rows of the queries that are looked at ([L]).
            sources: the row of each one's document ([L]); a document with the same text stands for it.
            found: by ranker, the documents that it found for each, best first ([L, k] rows; -1 where there is none).
            device: what the model computes on.
            store: keeps the scores.
        """
        copies = asked.document_copies
        first = np.concatenate([rows[:, : self.candidates] for rows in found.values()], axis=1)  # [L, C]
        others = [
            np.setdiff1d(copies[rows[rows >= 0]], copies[[source]])  # each text once, but for the source's own
            for rows, source in zip(first, sources, strict=True)
        ]
        lists = Ragged.of([source, *rows] for rows, source in zip(others, sources, strict=True))  # the source first
        if self.rank >= lists.lengths.max():
            log.warning(
                "generator.filters.cross_encoder.rank=%d drops nothing: of the documents that the rankers found, %d at "
                "most are ranked for a query; lower it",
                *(self.rank, lists.lengths.max()),
            )
        pairs = np.stack([np.asarray(places, np.int64)[lists.owners], lists.values], axis=1)
        teacher = load_teacher(
            str(self.model), self.max_length, self.precision, device, self.revision, self.trust_remote_code
        )
        scores = Ragged(teacher.score(asked, pairs, store), lists.offsets)
        return [1 + int((each[1:] > each[0]).sum()) for each in scores.lists()]
