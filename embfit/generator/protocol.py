"""The interface of all generators, and the records that they return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from embfit.generator.documents import DocumentChoice
from embfit.generator.filters import Filters
from embfit.generator.plan import SourceDocument
from embfit.records import Collection
from embfit.style import StyleExample


@dataclass(frozen=True)
class GeneratedQuery:
    """A query that was written about a document.

    Args:
        id: identifies the request and the query's place in its answer.
        text: the query.
        document: the document that it is about.
        style: the name of its style, or of the part of the document that it was taken from.
        request: the id of the request; empty if no model wrote it.
        may_copy: whether it may consist of the document's words.
        finished: whether the model ended it before the limit of tokens.
        log_probability: the mean log-probability of its tokens; None if that is not known.
        provenance: how it was written: further columns of the table of queries.
    """

    id: str
    text: str
    document: SourceDocument
    style: str
    request: str = ""
    may_copy: bool = False
    finished: bool = True
    log_probability: float | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Generation:
    """The queries that a generator returned for some documents.

    Args:
        queries: all queries, in the order of the documents.
        facts: counts: `requests`, `answered`, `malformed`, `refused`, `waiting`, `tokens`, `cost`.
        examples: the few-shot examples that the model saw; none of them is a query of the data set.
    """

    queries: Sequence[GeneratedQuery]
    facts: Mapping[str, Any]
    examples: Sequence[StyleExample] = ()


@dataclass(frozen=True)
class Estimate:
    """An estimate of the requests that a generation still needs.

    Args:
        documents: the number of documents that get queries.
        queries: the number of queries of each.
        requests: the number of all requests.
        answered: the number of requests that are answered already.
        tokens: the estimated number of tokens of the others.
        cost: the price of these tokens; None if no price is set.
        minutes: the time that they take; None until the model has been timed.
        pairs: the number of the collection's own pairs that the model is first trained on; 0 if it is not trained.
    """

    documents: int
    queries: int
    requests: int = 0
    answered: int = 0
    tokens: int = 0
    cost: float | None = None
    minutes: float | None = None
    pairs: int = 0


class Generates(Protocol):
    """A generator: it writes queries about documents."""

    @property
    def name(self) -> str:
        """The generator's name in the provenance of queries."""

    @property
    def documents(self) -> DocumentChoice:
        """Which documents get queries."""

    @property
    def filters(self) -> Filters:
        """Which queries are kept."""

    @property
    def seed(self) -> int:
        """The seed of all random draws."""

    def example_pool(self, collection: Collection) -> Sequence[StyleExample]:
        """Return the collection's own queries that serve as examples."""

    def estimate(self, collection: Collection, documents: Sequence[SourceDocument], folder: Path) -> Estimate:
        """Estimate what queries about some documents would take, without sending a request.

        Args:
            collection: has the documents.
            documents: the documents that the queries would be about.
            folder: the folder of journals.
        """

    def generate(self, collection: Collection, documents: Sequence[SourceDocument], folder: Path) -> Generation:
        """Return queries about some documents.

        Args:
            collection: has the documents.
            documents: the documents that the queries are about.
            folder: the folder of journals.
        """


def source_documents(collection: Collection, rows: Sequence[int], choice: DocumentChoice) -> list[SourceDocument]:
    """Return some documents of a collection, with the text that generators read."""
    digests = collection.document_digests["content"]
    table = collection.corpus.select(rows)
    texts = collection.document_texts(rows)
    return [
        SourceDocument(row, collection.document_ids[row], choice.read(text), title, body, digests[row].as_py().hex())
        for row, text, title, body in zip(rows, texts, table["title"], table["text"], strict=True)
    ]
