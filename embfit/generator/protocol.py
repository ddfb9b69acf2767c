"""What generators have in common: what they are asked, and what they give."""

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
        document: what it is about.
        style: the name of its style, or of the part of the document that it was taken from.
        request: the id of the request; empty where no model was asked.
        may_copy: it may consist of the document's words.
        finished: the model had come to its end when the limit of tokens was reached.
        log_probability: the mean of its tokens' log-probabilities; None where that is not known.
        provenance: what wrote it, and how: columns of the table of queries.
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
    """What a generator has made of some documents.

    Args:
        queries: all of them, in the order of the documents.
        facts: what was counted: `requests`, `answered`, `malformed`, `refused`, `waiting`, `tokens`, `cost`.
        examples: those that a model was shown; none of them is a query of the data set.
    """

    queries: Sequence[GeneratedQuery]
    facts: Mapping[str, Any]
    examples: Sequence[StyleExample] = ()


@dataclass(frozen=True)
class Estimate:
    """What is still to be asked for.

    Args:
        documents: the number of documents that get queries.
        queries: the number of queries of each.
        requests: the number of all requests.
        answered: the number of requests whose answers are there.
        tokens: the number of tokens that the others are likely to take.
        cost: their price; None where no price is set.
        minutes: how long they take; None until the model has been timed.
        pairs: the number of the collection's own pairs that the model is first trained on; 0 where nothing is trained.
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
    """What writes queries about documents."""

    @property
    def name(self) -> str:
        """What it is called where queries say who wrote them."""

    @property
    def documents(self) -> DocumentChoice:
        """Which documents get queries."""

    @property
    def filters(self) -> Filters:
        """Which queries are kept."""

    @property
    def seed(self) -> int:
        """Draws whatever is drawn."""

    def example_pool(self, collection: Collection) -> Sequence[StyleExample]:
        """Return the collection's own queries that serve as examples."""

    def estimate(self, collection: Collection, documents: Sequence[SourceDocument], folder: Path) -> Estimate:
        """Return what queries about some documents would take; nothing is asked.

        Args:
            collection: has the documents.
            documents: what the queries would be about.
            folder: where journals are kept.
        """

    def generate(self, collection: Collection, documents: Sequence[SourceDocument], folder: Path) -> Generation:
        """Return queries about some documents.

        Args:
            collection: has the documents.
            documents: what the queries are about.
            folder: where journals are kept.
        """


def source_documents(collection: Collection, rows: Sequence[int], choice: DocumentChoice) -> list[SourceDocument]:
    """Return some documents of a collection as generators read them."""
    digests = collection.document_digests["content"]
    table = collection.corpus.select(rows)
    texts = collection.document_texts(rows)
    return [
        SourceDocument(row, collection.document_ids[row], choice.read(text), title, body, digests[row].as_py().hex())
        for row, text, title, body in zip(rows, texts, table["title"], table["text"], strict=True)
    ]
