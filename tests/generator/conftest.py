"""Fixtures: requests about documents that are told apart by a word, and short pauses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from embfit.generator.plan import QueryRequest, SourceDocument, plan_request
from embfit.style import Style

STYLE = Style(template="question.md", label="Question")


def new_requests(count: int, queries: int = 2, form: str = "chat", **settings: object) -> list[QueryRequest]:
    """Return requests about `doc0`, `doc1`, and so on."""
    documents = [
        SourceDocument(
            row, f"d{row}", f"doc{row} is about the heart", "", f"doc{row} is about the heart", f"digest{row}"
        )
        for row in range(count)
    ]
    known = {"model": "tiny", "form": form, **settings}
    return [plan_request(document, "question", STYLE, [], queries, known, None, 0) for document in documents]


@pytest.fixture
def make_requests() -> Callable[..., list[QueryRequest]]:
    return new_requests


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for hundredths of a second where a user would wait for seconds."""
    monkeypatch.setattr("embfit.generator.concurrency.FIRST_PAUSE", 0.01)
    monkeypatch.setattr("embfit.generator.concurrency.LONGEST_PAUSE", 0.05)
    monkeypatch.setattr("embfit.generator.asking.ELSEWHERE", 0.02)
