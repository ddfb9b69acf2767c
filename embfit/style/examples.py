"""Few-shot examples: queries written by people, with their documents, as patterns for the model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from embfit.errors import ConfigError, UserError
from embfit.records import Collection
from embfit.style.template import find_template
from embfit.text_digests import digest_text

SHOWN_WORDS = 100  # words of an example's document
GENERAL = "general.jsonl"  # examples of every style, about general subjects


@dataclass(frozen=True)
class StyleExample:
    """A query and the document that it was written about.

    Args:
        query: its text.
        document: what the model reads of the document, cut to its first words.
        style: the name of the style that it is an example of; None for any.
        query_row: the query's row in the collection; None where it came from a file.
        document_row: the document's row in the collection; None where it came from a file.
    """

    query: str
    document: str
    style: str | None = None
    query_row: int | None = None
    document_row: int | None = None

    @property
    def digest(self) -> bytes:
        """Identifies the text that a model reads of the example."""
        return digest_text(json.dumps([self.query, self.document]))


@dataclass(frozen=True)
class FewShot:
    """The source of few-shot examples, and their number in a request.

    Queries of a split that serve as examples leave its evaluation, and their documents get no synthetic queries.

    Args:
        file: JSON lines with the keys `query`, `document` and, where an example is for one style alone, `style`; None
            for none.
        split: the split of the collection's own queries to take examples from; None for none.
        pool: the number of the split's queries that serve as examples, drawn with the generator's seed.
        count: the number of examples in a request.
        rotate: give each document other examples of the pool; false gives all documents the same ones.
    """

    file: str | None = None
    split: str | None = None
    pool: Annotated[int, Field(ge=1)] = 16
    count: Annotated[int, Field(ge=0)] = 4
    rotate: bool = True

    def __post_init__(self) -> None:
        if self.file is not None and self.split is not None:
            raise ValueError("file and split are both set; examples come from one of them")

    def load(self, collection: Collection, seed: int) -> list[StyleExample]:
        """Return the pool of examples; empty if none are configured.

        Raises:
            ConfigError: the collection has no such split.
            UserError: the file is missing or malformed.
        """
        if self.file is not None:
            return list(_read(Path(self.file).expanduser()))
        if self.split is None:
            return []
        if self.split not in collection.qrels:
            raise ConfigError(
                f"generator.examples.split={self.split}: {collection.name} has {', '.join(collection.qrels) or 'none'}"
            )
        judged = collection.qrels[self.split]
        best = {query: max(grades, key=lambda name: (grades[name], name)) for query, grades in judged.items() if grades}
        relevant = sorted(query for query, document in best.items() if judged[query][document] >= 1)
        drawn = np.random.default_rng(seed).permutation(len(relevant))[: self.pool]
        return [_of(collection, relevant[place], best[relevant[place]]) for place in sorted(drawn.tolist())]

    def load_or_general(self, collection: Collection, seed: int) -> list[StyleExample]:
        """Return the pool of examples, or general ones if it is empty: a base model needs examples for the form.

        Raises:
            ConfigError: the collection has no such split.
            UserError: the file is missing or malformed.
        """
        if self.count and self.file is None and self.split is None:
            return replace(self, file=str(find_template(GENERAL))).load(collection, seed)
        return self.load(collection, seed)

    def choose(self, pool: Sequence[StyleExample], style: str, document: str, seed: int) -> list[StyleExample]:
        """Return the examples for a document's request.

        The choice depends only on the texts, and not on the order or the number of the documents.

        Args:
            pool: what `load` returned.
            style: the name of the requested style.
            document: the digest of the document's text.
            seed: the generator's seed.
        """
        fitting = [example for example in pool if example.style in (None, style)]
        turned = document if self.rotate else ""
        order = sorted(
            fitting, key=lambda example: (digest_text(f"{seed} {turned} {example.digest.hex()}"), example.query)
        )
        return order[: self.count]


def _of(collection: Collection, query: str, document: str) -> StyleExample:
    query_row, document_row = collection.query_rows[query], collection.document_rows[document]
    [asked], [read] = collection.query_texts([query_row]), collection.document_texts([document_row])
    return StyleExample(asked, _cut(read), None, query_row, document_row)


def _read(file: Path) -> Iterator[StyleExample]:
    if not file.is_file():
        raise UserError(
            f"generator.examples.file={file} is not there; name JSON lines with the keys query and document"
        )
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            query, document, style = row["query"], row["document"], row.get("style")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f'{file}:{number}: expected {{"query": "...", "document": "..."}} ({error!r})') from error
        if not (isinstance(query, str) and isinstance(document, str) and isinstance(style, str | None)):
            raise UserError(f'{file}:{number}: "query", "document" and "style" are texts')
        yield StyleExample(" ".join(query.split()), _cut(document), style)


def _cut(text: str) -> str:
    return " ".join(text.split()[:SHOWN_WORDS])
