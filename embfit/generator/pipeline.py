"""From documents to filtered queries: the steps of both `task=generate` and fine-tuning on generated queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from embfit.generator.filter_marks import FilteredText, Marks
from embfit.generator.plan import SourceDocument
from embfit.generator.protocol import GeneratedQuery, Generates, Generation, source_documents
from embfit.model import Encoder, embed
from embfit.records import Collection
from embfit.store import Store
from embfit.style import StyleExample


@dataclass(frozen=True)
class WrittenQueries:
    """The queries of a generator, and the results of the filters.

    Args:
        generator: the generator's name.
        made: all queries.
        marks: the results of the filters.
    """

    generator: str
    made: Generation
    marks: Marks

    @property
    def kept(self) -> list[GeneratedQuery]:
        """The queries that no filter drops."""
        return [query for query, mark in zip(self.made.queries, self.marks.dropped_by, strict=True) if mark is None]


def chosen_documents(
    generator: Generates,
    pool: Sequence[StyleExample],
    collection: Collection,
    encoder: Callable[[], Encoder],
    store: Store,
) -> list[SourceDocument]:
    """Return the documents that a generator writes about, without those of its few-shot examples.

    Args:
        generator: has the choice of documents.
        pool: its few-shot examples.
        collection: has the documents.
        encoder: loads the base model; called only if documents are drawn from clusters.
        store: keeps embeddings.

    Raises:
        UserError: no document is long enough.
    """
    rows = generator.documents.choose(
        collection,
        lambda chosen: embed(encoder(), collection, "document", store).vectors.take(chosen),
        generator.seed,
        [example.document_row for example in pool if example.document_row is not None],
    )
    return source_documents(collection, rows.tolist(), generator.documents)


def filter_queries(
    generator: Generates,
    made: Generation,
    collection: Collection,
    encoder: Callable[[], Encoder],
    store: Store,
    journals: Path,
    device: str,
) -> WrittenQueries:
    """Mark the queries that are unfit to train on.

    Args:
        generator: has the filters.
        made: all queries.
        collection: has the documents and the evaluation queries.
        encoder: loads the base model; called only if a filter needs it.
        store: keeps embeddings and BM25 indexes.
        journals: the folder of the journal with the judge's grades.
        device: the device of the cross-encoder.
    """
    never = [*_evaluation_queries(collection), *(example.query for example in made.examples)]
    marks = generator.filters.apply(list(_filtered_texts(made)), collection, never, encoder, store, journals, device)
    return WrittenQueries(generator.name, made, marks)


def journals_of(store: Store, run: Path) -> Path:
    """Return the folder of journals: in the store, or in the run's folder if the store is disabled.

    A disabled store is removed when the process ends, and paid answers must not be lost with it.
    """
    return (store.dir if store.enabled else run) / "generation"


def _filtered_texts(made: Generation) -> Iterator[FilteredText]:
    for query in made.queries:
        document = query.document
        whole = f"{document.title} {document.body}"
        yield FilteredText(query.text, document.row, whole, query.may_copy, query.finished, query.log_probability)


def _evaluation_queries(collection: Collection) -> Iterator[str]:
    """Yield the texts of the evaluation queries: those of every split but train."""
    names = {query for split, judged in collection.qrels.items() if split != "train" for query in judged}
    yield from collection.query_texts([collection.query_rows[name] for name in sorted(names)])
