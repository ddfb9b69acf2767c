"""Check whether a cross-encoder also ranks a query's document first among the hits of a search."""

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
    """Ranks each query's own document among the query's hits with a cross-encoder.

    This is the second half of CADET's filter (Tamber et al. 2025): the document must be among the first twenty of a
    search, and the cross-encoder must rank it first among those.

    Args:
        model: the cross-encoder, or a late-interaction model: a folder, or a name on the Hub; None turns this filter
            off.
        revision: branch, tag or commit on the Hub.
        trust_remote_code: whether to run Python code that comes with the model.
        max_length: the most tokens that a cross-encoder reads of a pair; None is its own limit, at most 512.
        precision: the number format in which it computes.
        rank: the worst rank of the query's document at which the query is kept.
        candidates: how many hits of each of the filters' rankers the document is ranked among.
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
        generated: Collection,
        places: Sequence[int],
        sources: Sequence[int],
        found: Mapping[str, np.ndarray],
        device: str,
        store: Store,
    ) -> list[int]:
        """Return the rank of each query's document among the query's hits.

        Args:
            generated: all generated queries with the documents. The store keys scores by both, so that no pair is
                scored again with other thresholds.
            places: the rows of the queries to rank documents for ([L]).
            sources: the row of each query's document ([L]); one with the same text counts as the same document.
            found: by ranker, the hits of each query, best first ([L, k] rows; -1 in empty places).
            device: the device of the model.
            store: keeps the scores.
        """
        copies = generated.document_copies
        first = np.concatenate([rows[:, : self.candidates] for rows in found.values()], axis=1)  # [L, C]
        others = [
            np.setdiff1d(copies[rows[rows >= 0]], copies[[source]])  # each text once, without the source's own
            for rows, source in zip(first, sources, strict=True)
        ]
        lists = Ragged.of([source, *rows] for rows, source in zip(others, sources, strict=True))  # the source first
        if self.rank >= lists.lengths.max():
            log.warning(
                "generator.filters.cross_encoder.rank=%d drops nothing: at most %d documents are ranked for a query; "
                "lower it, or raise generator.filters.cross_encoder.candidates",
                *(self.rank, lists.lengths.max()),
            )
        pairs = np.stack([np.asarray(places, np.int64)[lists.owners], lists.values], axis=1)
        teacher = load_teacher(
            str(self.model), self.max_length, self.precision, device, self.revision, self.trust_remote_code
        )
        scores = Ragged(teacher.score(generated, pairs, store), lists.offsets)
        return [1 + int((each[1:] > each[0]).sum()) for each in scores.lists()]
