"""`review.jsonl`: how it is read, what it does to the filters' marks, and how far both agree."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from embfit.errors import UserError
from embfit.generator.filter_marks import Marks
from embfit.generator.pipeline import WrittenQueries
from embfit.generator.plan import SourceDocument
from embfit.generator.protocol import GeneratedQuery, Generation
from embfit.review.agreement import Agreement, agreement
from embfit.review.decisions import Decisions, apply_decisions, read_decisions

DOCUMENT = SourceDocument(0, "d0", "text", "", "text", "00")


def written(**marks: str | None) -> WrittenQueries:
    queries = [GeneratedQuery(name, f"query {name}", DOCUMENT, "question") for name in marks]
    return WrittenQueries("tiny", Generation(queries, {}), Marks(list(marks.values()), {}, [0] * len(marks)))


def lines(path: Path, *answers: tuple[str, str]) -> Path:
    path.write_text("".join(json.dumps({"query_id": query, "answer": answer}) + "\n" for query, answer in answers))
    return path


def test_a_decision_overrides_the_filters(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    one = written(kept=None, bad=None, long="form", equal="leak", other="form")
    again = written(bad=None, held=None)
    answers = {"bad": "drop", "long": "keep", "equal": "keep", "other": "drop", "held": "keep", "gone": "drop"}
    decisions = Decisions(Path("review.jsonl"), answers, skipped=2, changed=1)
    (first, second), facts = apply_decisions([one, again], decisions)
    assert first.marks.dropped_by == [None, "review", None, "leak", "form"]
    assert second.marks.dropped_by == ["review", None]
    assert [query.id for query in first.kept] == ["kept", "long"]
    assert (first.marks.counts["form"], first.marks.counts["review"], first.marks.counts["leak"]) == (1, 1, 1)
    assert facts == {
        "review": {
            "kept": 2, "dropped": 2, "overruled": 2, "leaks": 1, "skipped": 2, "changed": 1, "unknown": 1,
        }
    }  # fmt: skip
    assert caplog.messages == [
        "review.jsonl: 4 decisions are used, 2 keep and 2 drop, 2 of them against the filters, 1 for queries that "
        "evaluate, which stay dropped, 2 skipped, 1 decided in two ways, of which the last counts, 1 about queries "
        "that are not among these"
    ]


def test_without_decisions_nothing_changes() -> None:
    one = written(kept=None, long="form")
    assert apply_decisions([one], None) == ([one], {})


def test_the_last_decision_about_a_query_counts_and_skipping_is_none(tmp_path: Path) -> None:
    mine = [("a", "keep"), ("b", "skip"), ("d", "skip"), ("a", "drop"), ("c", "keep"), ("c", "keep")]
    path = lines(tmp_path / "a.jsonl", *mine, ("c", "skip"), ("d", "keep"))  # another person's are the last two
    assert read_decisions(path) == Decisions(path, {"a": "drop", "c": "keep", "d": "keep"}, skipped=1, changed=1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"query_id": "a", "answer": "yes"}', r'a\.jsonl:1: "answer" must be keep, drop or skip, got \'yes\''),
        ('{"query_id": "a", "grade": 1}', r'a\.jsonl:1: there is no "answer"; the record has query_id, grade'),
        ("", r"a\.jsonl has no decisions; export them on the page that `embfit review RUN` writes"),
    ],
)
def test_what_is_no_file_of_decisions(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(UserError, match=said):
        read_decisions(tmp_path / "a.jsonl")


def test_agreement_by_filter() -> None:
    marks = {"a": None, "b": None, "c": None, "d": "form", "e": "round_trip", "f": "round_trip", "g": "copy"}
    rows = [{"_id": name, "dropped_by": mark} for name, mark in marks.items()]
    rows += [{"_id": "h", "dropped_by": None, "review": "keep"}, {"_id": "i", "dropped_by": "review", "review": "drop"}]
    answers = {"a": "keep", "b": "drop", "c": "keep", "d": "drop", "e": "keep", "f": "drop", "unknown": "keep"}
    answers |= {"h": "keep", "i": "drop"}  # those were heeded by the run: its marks say what the person said
    found = list(agreement(rows, Decisions(Path("r"), answers)))
    assert found == [Agreement(None, 3, 2), Agreement("form", 1, 1), Agreement("round_trip", 2, 1)]
    # Wilson: centre (2/3 + z²/6) / (1 + z²/3), z = 1.96
    assert found[0].interval == pytest.approx((0.2077, 0.9385), abs=1e-4)
