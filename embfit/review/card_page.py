"""The page on which a person decides cards: one file that needs no network, driven by keys, mouse or touch.

Decisions are kept in the browser at each key (`localStorage`), and exported as JSON lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from embfit.report.formatting import cut_at_word
from embfit.report.templates import template_environment
from embfit.store import digest

Kind: TypeAlias = Literal["review", "judge"]

CHARACTERS = 6_000  # of a document's text


@dataclass(frozen=True)
class Answer:
    """One of the decisions that a card may get.

    Args:
        value: what the exported line says.
        key: what is pressed for it.
        label: what the button says.
    """

    value: str | int
    key: str
    label: str


@dataclass(frozen=True)
class Card:
    """A query and a document, to be decided together.

    Args:
        query_id: identifies the query.
        query: its text.
        document_id: identifies the document.
        title: of the document.
        text: of the document.
        shared: words of the document that are marked, in lower case.
        facts: names and values, shown below the document.
        verdict: what a program says of the card, by its name; None where it says nothing.
    """

    query_id: str
    query: str
    document_id: str
    title: str
    text: str
    shared: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    verdict: str | None = None


@dataclass(frozen=True)
class CardPage:
    """What a page shows.

    Args:
        kind: what is decided.
        name: of the run or collection.
        source: identifies what the cards are of: pages of one source share what the browser keeps.
        answers: the decisions that a card may get.
        cards: in order.
        verdicts: name of a verdict → what it means, and the answer that agrees with it.
        hint: what is to be done with the exported file, a command.
    """

    kind: Kind
    name: str
    source: str
    answers: Sequence[Answer]
    cards: Sequence[Card]
    hint: str
    verdicts: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """The name of the exported file."""
        return "review.jsonl" if self.kind == "review" else "judgements.jsonl"

    def html(self) -> str:
        """Return the page."""
        template = template_environment("review", "report").get_template("cards.html")
        return template.render(page=self, data=self._data())

    def _data(self) -> dict[str, Any]:
        """Return what the script reads, as JSON values; a document that several cards show is written once."""
        places: dict[str, int] = {}
        documents: list[list[str]] = []
        cards = []
        for card in self.cards:
            if card.document_id not in places:
                places[card.document_id] = len(documents)
                documents.append([card.document_id, card.title, cut_at_word(card.text, CHARACTERS)])
            cards.append([card.query_id, card.query, places[card.document_id], card.shared, card.facts, card.verdict])
        return {
            "kind": self.kind,
            "file": self.file,
            "place": f"embfit {self.kind} {digest({'source': self.source})[:20]}",
            "answers": [[answer.value, answer.key, answer.label] for answer in self.answers],
            "verdicts": {name: list(pair) for name, pair in self.verdicts.items()},
            "documents": documents,
            "cards": cards,
        }
