"""Queries that are parts of their documents, without any model: the baseline for queries that a model writes."""

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
K1 = 1.5  # of BM25: the larger, the more the repetitions of a word count
MORE_SPANS = 4  # draws for each wanted span, since some overlap others
_HEADING = re.compile(r"^#{1,6}\s+(\S.*?)\s*#*$|^(\S[^\n]*)\n(?:=+|-+)$", re.MULTILINE)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n{2,}")


@dataclass(frozen=True)
class ExtractiveGenerator:
    """Uses titles, headings, first sentences, key words and spans as queries; it needs no model.

    In most pairs the query's words are removed from the document (`masked`). Otherwise training would only learn to
    find equal strings (the inverse cloze task: Lee et al. 2019, who remove them in 90 % of pairs).

    Args:
        queries: the number of queries of each document, if it has as many parts; `auto` is 50,000 divided by the number
            of documents, within 3 to 10.
        parts: the kinds of parts, which are used in turn; spans supply the queries that are still missing.
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
        """The generator's name in the provenance of queries."""
        return "extractive"

    def example_pool(self, collection: Collection) -> list[StyleExample]:
        """Return no examples, since no model reads them."""
        return []

    def estimate(self, collection: Collection, documents: Sequence[SourceDocument], folder: Path) -> Estimate:
        """Estimate the queries about some documents; they need no request."""
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
    """Return whether a match begins or ends inside a word, as `art` does in `article`."""
    return any(is_within_word(match.string, place) for place in match.span())


def masked_documents(queries: Iterable[GeneratedQuery]) -> dict[str, tuple[str, str]]:
    """Return, by query id, the id and text of the document without the query's words.

    Queries whose document is read whole are left out.
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
    if len(text) < 2 * SPAN[1]:  # little of the document would be left
        return
    for _ in range(wanted * MORE_SPANS):
        length = int(random.integers(SPAN[0], SPAN[1] + 1))
        start = int(random.integers(0, len(text) - length + 1))
        yield " ".join(text[start : start + length])


def _rarity(texts: Iterable[str]) -> dict[str, float]:
    """Return BM25's inverse document frequency of each word."""
    count, having = 0, Counter[str]()
    for text in texts:
        count += 1
        having.update(set(words(text)))
    return {word: math.log(1 + (count - number + 0.5) / (number + 0.5)) for word, number in having.items()}


def _keywords(text: str, rarity: Mapping[str, float]) -> list[str]:
    """Return the words with the highest BM25 weights in a document, in the order of the text."""
    counted = Counter(word for word in words(text) if len(word) > 2 and not word.isdigit())
    weights = {word: rarity[word] * number * (K1 + 1) / (number + K1) for word, number in counted.items()}
    best = set(sorted(weights, key=lambda word: (-weights[word], word))[:KEYWORDS])
    return [word for word in counted if word in best]
