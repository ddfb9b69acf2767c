"""From documents to filtered queries: what `task=generate` and a fine-tuning on generated queries have in common."""

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
    """What a generator wrote, and what filters say of it.

    Args:
        generator: what wrote it.
        made: all queries.
        marks: what filters say.
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
    """Return the documents that a generator writes about; those of its examples are not among them.

    Args:
        generator: says which ones.
        pool: its examples.
        collection: has the documents.
        encoder: loads the base model; called only where documents are drawn from clusters.
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
        generator: wrote them, and says which are kept.
        made: all queries.
        collection: has the documents, and the queries that evaluate.
        encoder: loads the base model; called only where a filter needs it.
        store: keeps embeddings and words.
        journals: the folder of the journal that a judge's grades are kept in.
        device: what a cross-encoder computes on.
    """
    never = [*_evaluating(collection), *(example.query for example in made.examples)]
    marks = generator.filters.apply(list(_looked_at(made)), collection, never, encoder, store, journals, device)
    return WrittenQueries(generator.name, made, marks)


def journals_of(store: Store, run: Path) -> Path:
    """Return the folder of journals: the store's, or the run's where the store is in memory alone.

    What was paid for outlives a store that is removed when the process ends.
    """
    return (store.dir if store.enabled else run) / "generation"


def _looked_at(made: Generation) -> Iterator[FilteredText]:
    for query in made.queries:
        document = query.document
        whole = f"{document.title} {document.body}"
        yield FilteredText(query.text, document.row, whole, query.may_copy, query.finished, query.log_probability)


def _evaluating(collection: Collection) -> Iterator[str]:
    """Yield the texts of the queries that evaluate: those of every split but train."""
    names = {query for split, judged in collection.qrels.items() if split != "train" for query in judged}
    yield from collection.query_texts([collection.query_rows[name] for name in sorted(names)])
