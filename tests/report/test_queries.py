import pytest

from embfit.compose.value_origins import Origins
from embfit.evaluator.metrics import answerable
from embfit.report.sections import queries as module
from embfit.report.sections.queries import explorer
from embfit.report.subject import Subject
from tests.report.reports import collection, report


def subject(**changes: object) -> Subject:
    return Subject(report(**changes), {}, Origins(), collection())


def test_queries_that_changed_most_come_first() -> None:
    data = explorer(subject(), collection())
    assert data["systems"] == ["base", "bm25", "tuned"]
    assert data["pair"] == ["base", "tuned"]
    # q2 and q3 gain 1/2, q4 loses 0.13, q1 stays.
    assert [query["text"][:10] for query in data["queries"]] == ["question 2", "question 3", "question 4", "question 1"]
    assert [query["subset"] for query in data["queries"]] == ["seen", "unseen", "unseen", "seen"]
    assert data["queries"][0]["values"] == [0.5, 0.5, 1.0]


def test_rankings_and_ranks_of_relevant_documents_are_shown() -> None:
    data = explorer(subject(), collection())
    second = data["queries"][0]
    names = [document["id"] for document in data["documents"]]
    base, _, tuned = ([names[place] for place, _ in ranked] for ranked in second["ranked"])
    assert base == ["d1", "d3", "d2", "d4", "d5"]
    assert tuned == ["d2", "d1", "d3", "d4", "d5"]
    assert [(names[place], grade, ranks) for place, grade, ranks in second["relevant"]] == [("d2", 1, [3, 3, 1])]


def test_large_reports_embed_the_largest_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUERIES", 2)
    monkeypatch.setattr(module, "DOCUMENTS", 1)
    data = explorer(subject(), collection())
    assert data["total"] == 4
    assert [query["text"][:10] for query in data["queries"]] == ["question 2", "question 3"]
    assert sorted(document["id"] for document in data["documents"]) == ["d1", "d2", "d3"]


def test_long_texts_are_cut_at_a_word() -> None:
    assert module._cut("word " * 100) == ("word " * 60).strip() + " …"
    assert module._cut("  two\n words ") == "two words"


def test_long_queries_are_cut_as_documents_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHARACTERS", 9)
    data = explorer(subject(), collection())
    assert [query["text"] for query in data["queries"]] == ["question …"] * 4


def test_judgements_are_gone_through_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(module, "answerable", lambda qrels: calls.append(1) or answerable(qrels))
    explorer(subject(), collection())
    assert len(calls) == 1


def test_a_single_system_shows_its_worst_queries_first() -> None:
    one = subject(evaluations=[report().evaluations[0]], comparisons=[])
    data = explorer(one, collection())
    assert data["pair"] == ["base", "base"]
    assert [query["values"] for query in data["queries"]] == sorted(query["values"] for query in data["queries"])
