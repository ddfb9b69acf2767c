"""Which generated queries are fit for training. A filter marks queries and never deletes them, so limits can change.

Filters are applied in the order of `filter_marks.ORDER`, and a query is marked with the first one that drops it. `leak`
is the first, since a reviewer may overrule any other mark but must not keep an evaluation query. Cheap filters follow.
The round trip is Promptagator's (Dai et al. 2022) with the looser rank of CADET (Tamber et al. 2025): on small
collections rank 1 costs more than it gains. A cross-encoder and a judge come last, and see only the remaining queries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from pydantic import Field

from embfit.generator.filter_marks import FilteredText, Marks
from embfit.generator.judge import Judge, JudgedPair
from embfit.generator.query_language import is_in_another_language, unknown_languages
from embfit.generator.round_trip import RoundTrip, source_ranks, with_texts
from embfit.generator.source_ranking import CrossEncoderFilter
from embfit.generator.text_checks import longest_run, mentions_document, misshapen
from embfit.index.language import LanguageChoice
from embfit.index.terms import words
from embfit.model import Encoder
from embfit.records import Collection
from embfit.store import Store
from embfit.text_digests import normalise
from embfit.vectors import Vectors, unit_length

Ranker: TypeAlias = Literal["dense", "bm25"]
LanguageCode: TypeAlias = Annotated[str, Field(pattern="^[a-z]{2,3}$")]


@dataclass(frozen=True)
class Filters:
    """The requirements on a generated query.

    Args:
        min_words: queries of fewer words are dropped.
        max_words: queries of more words are dropped.
        log_probability: queries with a lower mean log-probability of their tokens are dropped, if the model that wrote
            them reports it; None turns this off.
        mention: whether to drop queries that mention "this document".
        languages: the ISO 639-1 codes of the languages that queries may be in; None allows all.
        copy_words: queries are dropped that share a sequence of at least this many words with their document; None
            turns this off. Styles that may copy (`may_copy`) are exempt.
        copy_share: the sequence must also be at least this share of the query's words.
        general: a query that was written about more than this many documents is too general, and dropped.
        similar: the cosine above which two queries of a document count as duplicates; None compares only words.
        round_trip: the worst rank of its document at which a query is kept, by the best of `rankers`; None turns this
            off.
        rankers: the rankers of the documents: the base model (`dense`), `bm25`, or both.
        language: the language of BM25's stemmer and stop words; auto is that of the documents, None uses neither.
        cross_encoder: a model that reranks the rankers' hits; there is none without `cross_encoder.model`.
        judge: a language model that grades each pair; there is none without `judge.model`.
    """

    min_words: Annotated[int, Field(ge=1)] = 2
    max_words: Annotated[int, Field(ge=1)] = 40
    log_probability: Annotated[float, Field(le=0)] | None = -2.5
    mention: bool = True
    languages: tuple[LanguageCode, ...] | None = None
    copy_words: Annotated[int, Field(ge=1)] | None = 8
    copy_share: Annotated[float, Field(ge=0, le=1)] = 0.6
    general: Annotated[int, Field(ge=1)] = 3
    similar: Annotated[float, Field(gt=0, le=1)] | None = 0.95
    round_trip: Annotated[int, Field(ge=1, le=100)] | None = 20
    rankers: tuple[Ranker, ...] = ("dense", "bm25")
    language: LanguageChoice = "auto"
    cross_encoder: CrossEncoderFilter = field(default_factory=CrossEncoderFilter)
    judge: Judge = field(default_factory=Judge)

    def __post_init__(self) -> None:
        if self.min_words > self.max_words:
            raise ValueError(f"min_words={self.min_words} is above max_words={self.max_words}; lower it")
        if self.languages is not None and (unknown := unknown_languages(self.languages)):
            raise ValueError(f"languages: {', '.join(unknown)} is unknown; write ISO 639-1 codes, such as en or de")
        if self.languages == ():
            raise ValueError("languages is empty, so no query could pass; name some, or set languages=null")
        if self.round_trip is not None and not self.rankers:
            raise ValueError(
                "rankers is empty, so no query could pass; name dense, bm25 or both, or set round_trip=null"
            )
        if self.cross_encoder.model is not None and not self.rankers:
            raise ValueError("cross_encoder reranks the rankers' hits, and rankers is empty; name dense, bm25 or both")
        most = self.cross_encoder.candidates * len(self.rankers)  # without the query's own document
        if self.cross_encoder.model is not None and self.cross_encoder.rank > most:
            raise ValueError(
                f"cross_encoder.rank={self.cross_encoder.rank} drops nothing: a document is ranked among {most} others "
                f"at most; lower it, or raise cross_encoder.candidates={self.cross_encoder.candidates}"
            )

    @property
    def need_encoder(self) -> bool:
        """Whether queries and documents are embedded."""
        return self.similar is not None or "dense" in self._searching

    @property
    def _searching(self) -> tuple[Ranker, ...]:
        """The rankers that search for queries: none if no filter needs them."""
        return self.rankers if self.round_trip is not None or self.cross_encoder.model is not None else ()

    def apply(
        self,
        queries: Sequence[FilteredText],
        collection: Collection,
        never: Iterable[str],
        encoder: Callable[[], Encoder],
        store: Store,
        journals: Path | None = None,
        device: str = "cpu",
    ) -> Marks:
        """Mark each query with the filter that drops it.

        Args:
            queries: the generated queries.
            collection: has the documents.
            never: texts that no query may equal: evaluation queries, and few-shot examples.
            encoder: loads the base model; called only if it is needed.
            store: keeps embeddings and BM25 indexes.
            journals: the folder of the journal with the judge's grades.
            device: the device of the cross-encoder.

        Raises:
            ConfigError: the judge's server is not named, or its key is not set.
            UserError: the cross-encoder cannot be loaded, or the judge's server does not answer.
        """
        forbidden = {normalise(text) for text in never}
        texts = [normalise(query.text) for query in queries]
        marks = ["leak" if text in forbidden else self._mark(query) for query, text in zip(queries, texts, strict=True)]
        runs = [longest_run(words(query.text), words(query.document_text)) for query in queries]
        _mark_where(marks, "copy", [self._copies(query, run) for query, run in zip(queries, runs, strict=True)])
        _mark_where(marks, "duplicate", _repeated(queries, texts, marks))
        documents = Counter(text for _, text in {(query.row, text) for query, text in zip(queries, texts, strict=True)})
        _mark_where(marks, "general", [documents[text] > self.general for text in texts])
        left = [place for place, mark in enumerate(marks) if mark is None]
        trip = self._trip([queries[place] for place in left], collection, encoder, store)
        if self.similar is not None and trip.vectors is not None:
            alike = _alike([queries[place].row for place in left], trip.vectors, self.similar)
            _mark_where(marks, "similar", alike, left)
        if self.round_trip is not None:
            found = [any(rank is not None and rank <= self.round_trip for rank in ranks) for ranks in trip.by_query()]
            _mark_where(marks, "round_trip", [not one for one in found], left)
        ranks = {name: _spread(values, left, len(queries)) for name, values in trip.ranks.items()}
        if self.cross_encoder.model is not None:
            ranks["cross_encoder"] = self._ranked(queries, marks, left, trip, collection, device, store)
        judged = self._judged(queries, marks, collection, journals)
        return Marks(marks, ranks, runs, *judged)

    def _ranked(
        self,
        queries: Sequence[FilteredText],
        marks: list[str | None],
        searched: Sequence[int],
        trip: RoundTrip,
        collection: Collection,
        device: str,
        store: Store,
    ) -> list[int | None]:
        """Mark queries whose document the cross-encoder ranks too low; return the ranks, None where there is none."""
        kept = [number for number, place in enumerate(searched) if marks[place] is None]
        left = [searched[number] for number in kept]
        if not left:
            return [None] * len(queries)
        found = self.cross_encoder.source_ranks(
            with_texts(collection, [query.text for query in queries]),
            left,
            [queries[place].row for place in left],
            {name: rows[kept] for name, rows in trip.found.items()},
            device,
            store,
        )
        _mark_where(marks, "cross_encoder", [rank > self.cross_encoder.rank for rank in found], left)
        return _spread(found, left, len(queries))

    def _judged(
        self,
        queries: Sequence[FilteredText],
        marks: list[str | None],
        collection: Collection,
        journals: Path | None,
    ) -> tuple[list[int | None], Mapping[str, Any]]:
        """Mark queries that the judge grades too low; return the grades, None where it gave none, and the counts."""
        left = [place for place, mark in enumerate(marks) if mark is None]
        if self.judge.model is None or not left:
            return [None] * len(queries), {}
        if journals is None:
            raise ValueError("a judge needs the folder of its journal")
        pairs = [
            JudgedPair(query.text, query.document_text, collection.document_ids[query.row])
            for query in (queries[place] for place in left)
        ]
        found = self.judge.verdicts(pairs, journals)
        low = [grade is not None and grade < self.judge.least for grade in found.grades]
        _mark_where(marks, "judge", low, left)
        return _spread(found.grades, left, len(queries)), found.facts

    def _mark(self, query: FilteredText) -> str | None:
        if not query.finished or misshapen(query.text, self.min_words, self.max_words):
            return "form"
        known, least = query.log_probability, self.log_probability
        if known is not None and least is not None and known < least:
            return "improbable"
        if self.mention and mentions_document(query.text):
            return "mention"
        foreign = self.languages is not None and is_in_another_language(query.text, self.languages)
        return "language" if foreign else None

    def _copies(self, query: FilteredText, run: int) -> bool:
        wanted = self.copy_words
        return (
            wanted is not None and not query.may_copy and run >= max(wanted, self.copy_share * len(words(query.text)))
        )

    def _trip(
        self, queries: Sequence[FilteredText], collection: Collection, encoder: Callable[[], Encoder], store: Store
    ) -> RoundTrip:
        if not queries:
            return RoundTrip({}, {})
        return source_ranks(
            [query.text for query in queries],
            [query.row for query in queries],
            collection,
            encoder() if self.need_encoder else None,
            store,
            self._searching,
            self.language,
        )


def _mark_where(marks: list[str | None], name: str, drop: Sequence[bool], places: Sequence[int] | None = None) -> None:
    """Mark queries that have no mark yet, at all places or the given ones."""
    for place, dropped in zip(range(len(marks)) if places is None else places, drop, strict=True):
        if dropped and marks[place] is None:
            marks[place] = name


def _repeated(queries: Sequence[FilteredText], texts: Sequence[str], marks: Sequence[str | None]) -> list[bool]:
    """Return for each query whether an earlier kept query of its document has the same text."""
    seen: set[tuple[int, str]] = set()
    found = []
    for query, text, mark in zip(queries, texts, marks, strict=True):
        found.append((query.row, text) in seen)
        if mark is None:
            seen.add((query.row, text))
    return found


def _alike(rows: Sequence[int], vectors: Vectors[np.ndarray], limit: float) -> list[bool]:
    """Return for each query whether its vector is too close to that of an earlier kept query of its document."""
    units = Vectors(unit_length(vectors.flat()), vectors.starts)
    kept: dict[int, list[int]] = {}
    found = []
    for place, row in enumerate(rows):
        others = kept.setdefault(row, [])
        close = bool(others) and float(units.take([place]).scores(units.take(others)).max()) > limit
        found.append(close)
        if not close:
            others.append(place)
    return found


def _spread(values: Sequence[int | None], places: Sequence[int], count: int) -> list[int | None]:
    whole: list[int | None] = [None] * count
    for place, value in zip(places, values, strict=True):
        whole[place] = value
    return whole
