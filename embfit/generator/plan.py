"""From documents and styles to requests: how many queries of which style each document gets, and each request's prompt.

A document's requests depend only on its text and on the generator's settings. So a document that is added, removed or
moved does not change the requests of other documents.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from pydantic import Field

from embfit.generator.journal_tables import JournalEntry
from embfit.style import Style, StyleExample, Template

Wanted: TypeAlias = Annotated[int, Field(ge=1)] | Literal["auto"]
"""The number of queries of a document; with `auto`, the fewer documents there are, the more queries each gets."""

PAIRS = 50_000  # pairs that `auto` aims for
FEWEST, MOST = 3, 10  # queries of a document with `auto`
UNNAMED_LABELS = {  # by style: the labels of chat requests whose keys have none, so that earlier paid answers are found
    "question": "Question", "keywords": "Keywords", "claim": "Claim", "title": "Title", "error": "Problem",
    "conversational": "Request",
}  # fmt: skip


@dataclass(frozen=True)
class SourceDocument:
    """A document that queries are written about.

    Args:
        row: its row in the collection.
        id: its id.
        text: the part of it that generators read.
        title: its title, empty if it has none.
        body: its text without the title.
        digest: identifies its whole text.
    """

    row: int
    id: str
    text: str
    title: str
    body: str
    digest: str


@dataclass(frozen=True)
class QueryRequest:
    """A request for queries about one document.

    Args:
        entry: its entry in the journal.
        document: the document that the queries are about.
        style: the name of their style.
        prompt: the text that the model reads.
        seed: the seed of the model's sampling.
    """

    entry: JournalEntry
    document: SourceDocument
    style: str
    prompt: str
    seed: int

    @property
    def id(self) -> str:
        """Identifies the request by all that its answer depends on."""
        return self.entry.id


def queries_per_document(wanted: Wanted, documents: int) -> int:
    """Return the number of queries of each document.

    Small collections need more queries: on 5,000 documents, three queries a document reach 62 % of the gain of fifty,
    and ten reach 90 %; on 500,000 documents, one reaches all of it (GPL: Wang et al. 2022, table 3).
    """
    return wanted if wanted != "auto" else min(MOST, max(FEWEST, PAIRS // max(1, documents)))


def share_out(shares: Mapping[str, float], count: int, document: str, seed: int) -> dict[str, int]:
    """Return how many of a document's queries get which style; styles without a query are left out.

    This is systematic sampling. Styles are laid end to end on a line, each as long as its share. Points at equal
    distances, with an offset from the document's digest, choose the styles. So each document gets each style in
    proportion to its share, rounded up or down, and over all documents the shares are met.

    Args:
        shares: the weight of each style.
        count: the document's queries.
        document: identifies the document's text.
        seed: the generator's seed.
    """
    total = sum(shares.values())
    begin = int.from_bytes(hashlib.sha256(f"{seed} {document}".encode()).digest()[:6], "big") / (1 << 48)
    points = (np.arange(count) + begin) / count * total
    ends = np.cumsum(list(shares.values()))
    places = np.minimum(np.searchsorted(ends, points, side="right"), len(ends) - 1)
    names = list(shares)
    return {names[place]: int((places == place).sum()) for place in sorted(set(places.tolist()))}


def plan_request(
    document: SourceDocument,
    style: str,
    chosen: Style,
    examples: Sequence[StyleExample],
    count: int,
    settings: Mapping[str, Any],
    language: str | None,
    seed: int,
    repeat: int = 0,
) -> QueryRequest:
    """Return the request for some queries about a document.

    Args:
        document: the document that they are about.
        style: the style's name.
        chosen: the style.
        examples: the few-shot examples in the prompt.
        count: the number of queries.
        settings: whatever else the answer depends on: model, form, sampling.
        language: the language of the queries; None for the document's own.
        seed: the generator's seed.
        repeat: the number of this request among equal ones, whose answers differ only by the model's random draws.
    """
    completes = settings["form"] == "completion"
    template = {"completion": chosen.continuation, "single": chosen.alone}.get(settings["form"], chosen.instruction)
    values = {
        "count": str(count),
        "document": " ".join(document.text.split()) if completes else document.text,
        "examples": show_examples(examples, chosen.label, completes),
        "label": chosen.label,
        "language": language or "the language of the document",
    }
    key = {
        "document": hashlib.sha256(document.text.encode()).hexdigest(),
        "template": template.digest,
        "style": style,
        "label": _label_in_key(style, chosen.label, template, examples, settings["form"]),
        "examples": [example.digest.hex() for example in examples],
        "language": language,
        "settings": dict(settings),
        "seed": seed,
        "repeat": repeat,
    }
    family = _digest(key)
    entry = JournalEntry(_digest({**key, "count": count}), family, count, document.id, style, str(settings["model"]))
    return QueryRequest(entry, document, style, template.fill(values), int(family[:7], 16))


def _label_in_key(
    style: str, label: str, template: Template, examples: Sequence[StyleExample], form: str
) -> str | None:
    """Return the label for a request's key, or None where earlier keys lacked it, so that paid answers are found."""
    if form in ("completion", "single"):
        return label
    is_read = bool(examples) or template.reads("label")
    return label if is_read and label != UNNAMED_LABELS.get(style) else None


def show_examples(examples: Sequence[StyleExample], label: str, completes: bool) -> str:
    """Return examples as text for a template; for a completion they have the form that the model continues."""
    shown = [f"Document: {example.document}\n{label}: {example.query}" for example in examples]
    if completes or not shown:
        return "\n\n".join(shown)
    return "\n\n".join(["Examples of queries that people have written about other documents:", *shown])


def scope_of(requests: Sequence[QueryRequest]) -> str:
    """Return an identifier of a set of requests, which share one budget."""
    return hashlib.sha256("".join(sorted(request.id for request in requests)).encode()).hexdigest()[:20]


def in_shard(request: str, shard: tuple[int, int]) -> bool:
    """Return whether a request is in a shard, such as (0, 2); each id is in exactly one shard."""
    number, parts = shard
    return int(request[:8], 16) % parts == number


def read_shard(shard: str) -> tuple[int, int]:
    """Parse a shard's number and the count of shards, such as `0/2`.

    Raises:
        ValueError: the text has another form, or the number is not below the count.
    """
    number, _, parts = shard.partition("/")
    if not (number.isdecimal() and parts.isdecimal() and int(number) < int(parts)):
        raise ValueError(f"shard: expected NUMBER/COUNT, such as 0/2 and 1/2 on two machines, got {shard!r}")
    return int(number), int(parts)


def _digest(key: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:20]
