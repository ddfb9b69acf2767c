"""Queries that are parts of their documents, without any model: the baseline to measure writing against."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import numpy as np
from pydantic import Field

from embfit.generator.documents import DocumentChoice
from embfit.generator.filters import Filters
from embfit.generator.plan import SourceDocument, Wanted, queries_per_document
from embfit.generator.protocol import Estimate, GeneratedQuery, Generation
from embfit.index.terms import is_within_word, words
from embfit.progress import track
from embfit.records import Collection, Seed
from embfit.store import digest
from embfit.style import StyleExample

Part: TypeAlias = Literal["title", "heading", "sentence", "keywords", "span"]

KEYWORDS = 5
SPAN = (6, 16)  # words of a span, at least and at most
K1 = 1.5  # BM25's: how slowly repetitions of a word stop counting
MORE_SPANS = 4  # tries for each span that is wanted, since some fall on others
_HEADING = re.compile(r"^#{1,6}\s+(\S.*?)\s*#*$|^(\S[^\n]*)\n(?:=+|-+)$", re.MULTILINE)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n{2,}")


@dataclass(frozen=True)
class ExtractiveGenerator:
    """Takes titles, headings, first sentences, key words and spans for queries; it needs no model.

    In most pairs the query's words are taken out of the document (`masked`), or training would only learn to find equal
    strings (the inverse cloze task: Lee et al. 2019, who do so in 90 %).

    Args:
        queries: the number of queries of each document, where it has as many parts; `auto`: 50,000 over the number of
            documents, 3 to 10.
        parts: where queries come from, one of each in turn; spans fill up what is wanted.
        masked: the share of the pairs whose document is read without the query's words.
        documents: which documents get queries.
        filters: which queries are kept.
        seed: draws the documents, the spans, and the pairs that are masked.
    """

    queries: Wanted = "auto"
    parts: tuple[Part, ...] = ("title", "heading", "sentence", "keywords", "span")
    masked: Annotated[float, Field(ge=0, le=1)] = 0.9
    documents: DocumentChoice = field(default_factory=DocumentChoice)
    filters: Filters = field(default_factory=Filters)
    seed: Seed = 0

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("parts is empty; name some of title, heading, sentence, keywords and span")

    @property
    def name(self) -> str:
        """What it is called where queries say who wrote them."""
        return "extractive"

    def example_pool(self, collection: Collection) -> list[StyleExample]:
        """Return nothing: no model is shown examples."""
        return []

    def estimate(self, collection: Collection, documents: Sequence[SourceDocument], folder: Path) -> Estimate:
        """Return what queries about some documents would take: no request."""
        return Estimate(len(documents), queries_per_document(self.queries, len(collection.corpus)))

    def generate(self, collection: Collection, documents: Sequence[SourceDocument], folder: Path) -> Generation:
        """Return parts of some documents as queries."""
        wanted = queries_per_document(self.queries, len(collection.corpus))
        rarity = _rarity(document.body for document in documents) if "keywords" in self.parts else {}
        found = [
            query
            for document in track(documents, "taking queries", len(documents), "documents")
            for query in self._of(document, wanted, rarity)
        ]
        facts = {"requests": 0, "answered": 0, "malformed": 0, "tokens": 0, "cost": None}
        return Generation(found, facts)

    def _of(self, document: SourceDocument, wanted: int, rarity: Mapping[str, float]) -> Iterator[GeneratedQuery]:
        random = np.random.default_rng([self.seed, int(document.digest[:12], 16)])
        candidates = {part: list(_parts(part, document, wanted, rarity, random)) for part in self.parts}
        spans = candidates.pop("span", [])
        rounds = range(max(map(len, candidates.values()), default=0))
        in_turn = [(part, texts[place]) for place in rounds for part, texts in candidates.items() if place < len(texts)]
        in_turn += [("span", text) for text in spans]
        taken: list[tuple[Part, str]] = []
        for part, text in in_turn:
            if len(taken) < wanted and not any(text in other or other in text for _, other in taken):
                taken.append((part, text))
        for place, (part, text) in enumerate(taken):
            masked = part != "keywords" and random.random() < self.masked
            name = digest({"document": document.digest, "part": part, "text": text, "place": place})[:20]
            rest = without(document, text) if masked else None
            yield GeneratedQuery(
                name, text, document, part, may_copy=True, provenance={"positive": rest, "seed": self.seed}
            )


def without(document: SourceDocument, *queries: str) -> str:
    """Return a document's text without its title, where that is one of some queries, and without their words."""
    text = document.body if document.title in queries else f"{document.title}\n{document.body}".strip()
    for query in queries:
        found = re.compile(r"\s+".join(map(re.escape, query.split())))
        text = found.sub(lambda match: match[0] if _cuts_a_word(match) else " ", text)
    return re.sub(r"[ \t]{2,}", " ", text).strip()


def _cuts_a_word(match: re.Match[str]) -> bool:
    """Say whether a match begins or ends inside a word, as `art` does in `article`."""
    return any(is_within_word(match.string, place) for place in match.span())


def masked_documents(queries: Iterable[GeneratedQuery]) -> dict[str, tuple[str, str]]:
    """Return the documents that lack a query's words, by the query's id: an id of their own, and their text.

    Queries whose document is read whole have none.
    """
    rest = ((query, query.provenance.get("positive")) for query in queries)
    return {query.id: (f"{query.document.id}#without-{query.id}", text) for query, text in rest if text}


def _parts(
    part: Part, document: SourceDocument, wanted: int, rarity: Mapping[str, float], random: np.random.Generator
) -> Iterator[str]:
    """Yield the parts of one kind, best first."""
    if part == "title":
        yield from [" ".join(document.title.split())] if document.title.strip() else []
    elif part == "heading":
        yield from (" ".join((match[1] or match[2]).split()) for match in _HEADING.finditer(document.body))
    elif part == "sentence":
        plain = _HEADING.sub("", document.body).strip()
        yield from (" ".join(plain_sentence.split()) for plain_sentence in _SENTENCE.split(plain)[:1] if plain_sentence)
    elif part == "keywords":
        yield from [" ".join(found)] if (found := _keywords(document.body, rarity)) else []
    else:
        yield from _spans(_HEADING.sub("", document.body).split(), wanted, random)


def _spans(text: Sequence[str], wanted: int, random: np.random.Generator) -> Iterator[str]:
    if len(text) < 2 * SPAN[1]:  # or little would be left of it
        return
    for _ in range(wanted * MORE_SPANS):
        length = int(random.integers(SPAN[0], SPAN[1] + 1))
        start = int(random.integers(0, len(text) - length + 1))
        yield " ".join(text[start : start + length])


def _rarity(texts: Iterable[str]) -> dict[str, float]:
    """Return BM25's weight of each word that several documents have: the rarer, the more."""
    count, having = 0, Counter[str]()
    for text in texts:
        count += 1
        having.update(set(words(text)))
    return {word: math.log(1 + (count - number + 0.5) / (number + 0.5)) for word, number in having.items()}


def _keywords(text: str, rarity: Mapping[str, float]) -> list[str]:
    """Return the words of most weight in a document, in the order of the text."""
    counted = Counter(word for word in words(text) if len(word) > 2 and not word.isdigit())
    weights = {word: rarity[word] * number * (K1 + 1) / (number + K1) for word, number in counted.items()}
    best = set(sorted(weights, key=lambda word: (-weights[word], word))[:KEYWORDS])
    return [word for word in counted if word in best]
