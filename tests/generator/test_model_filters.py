"""The filters that ask a model: a cross-encoder's rank, and a judge's grade over real HTTP."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from embfit.errors import ConfigError, UserError
from embfit.generator import Budget, CrossEncoderFilter, DocumentChoice, Filters, Judge
from embfit.generator.answers import MalformedError, read_grade
from embfit.generator.dataset import write_queries
from embfit.generator.filter_marks import FilteredText, Marks
from embfit.generator.protocol import GeneratedQuery, Generation, source_documents
from embfit.generator.summary import describe_generation
from embfit.model import CrossEncoder, Encoder, save_cross_encoder
from embfit.records import Collection
from embfit.store import Store
from tests.conftest import TEXTS, make_collection
from tests.generator.model_server import INPUT, OUTPUT, Answer, ModelServer, says

LOOSE = Filters(similar=None, rankers=("bm25",), round_trip=None, copy_words=None, min_words=1, language=None)
ASKED = [("what pumps blood", 0), ("fever and infection", 2), ("bile and toxins", 6), ("blood", 1)]


@pytest.fixture
def collection() -> Collection:
    return make_collection({f"d{row}": text for row, text in enumerate([*TEXTS, TEXTS[0]])}, {}, {})


def terms(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def never_loaded() -> Encoder:
    raise AssertionError("no filter looks at vectors")


def written(*rows: tuple[str, int]) -> list[FilteredText]:
    return [FilteredText(text, row, TEXTS[row % len(TEXTS)]) for text, row in rows]


def test_a_cross_encoder_ranks_a_document_among_what_was_found(
    collection: Collection,
    tiny_ranker: CrossEncoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_cross_encoder(tiny_ranker, tmp_path / "ranker")
    store = Store(tmp_path / "store")
    asked = CrossEncoderFilter(model=str(tmp_path / "ranker"), precision="fp32", rank=2)
    filters = replace(LOOSE, cross_encoder=asked)
    plain = LOOSE.apply(written(*ASKED), collection, [], never_loaded, store)
    assert plain.ranks == {}
    marks = filters.apply(written(*ASKED, ("Blood", 1)), collection, [], never_loaded, store)
    for (text, row), rank in zip(ASKED, marks.ranks["cross_encoder"], strict=False):
        shared = [place for place, words in enumerate(TEXTS) if terms(text) & terms(words)]
        scores = {place: tiny_ranker.score([(text, TEXTS[place])])[0] for place in {*shared, row}}
        assert rank == 1 + sum(score > scores[row] for place, score in scores.items() if place != row)
    assert marks.ranks["cross_encoder"][4] is None  # a duplicate is not ranked
    ranks = marks.ranks["cross_encoder"][:4]
    assert list(marks.dropped_by[:4]) == ["cross_encoder" if rank > 2 else None for rank in ranks]

    def never(*_: Any) -> Any:
        raise AssertionError("all pairs have a score")

    monkeypatch.setattr(CrossEncoder, "score_batches", never)
    stricter = replace(filters, cross_encoder=replace(asked, rank=1), general=1)
    again = stricter.apply(written(*ASKED, ("Blood", 1)), collection, [], never_loaded, store)
    assert list(again.dropped_by[:4]) == ["cross_encoder" if rank > 1 else None for rank in ranks]


def graded(body: dict[str, Any], times: int) -> Answer:
    """Grade by the query; one query gets no answer that can be read."""
    query = body["messages"][0]["content"].partition("Query: ")[2].partition("\n")[0]
    grade = {"what pumps blood": 3, "fever and infection": 1, "bile and toxins": 2}.get(query)
    return says("it is good") if grade is None else says(f'<think>hm</think>```json\n{{"grade": {grade}}}\n```')


def judged(server: ModelServer, folder: Path, collection: Collection, **changed: Any) -> Marks:
    judge = Judge(**{"url": server.url, "model": "tiny", "concurrency": 2, **changed})
    filters = replace(LOOSE, rankers=(), judge=judge)
    return filters.apply(written(*ASKED), collection, [], lambda: pytest.fail("no model"), Store(folder), folder)


def test_a_judge_grades_each_pair_once(collection: Collection, tmp_path: Path) -> None:
    with ModelServer(graded) as server:
        marks = judged(server, tmp_path, collection)
        assert marks.dropped_by == [None, "judge", None, None]  # what has no grade is kept
        assert marks.grades == [3, 1, 2, None]
        assert marks.counts["judge"] == 1
        assert len(server.bodies) == 3 + 3
        assert marks.facts == {
            "judge": "tiny", "judge_requests": 4, "judge_unanswered": 1, "judge_malformed": 1, "judge_refused": 0,
            "judge_tokens": 6 * (INPUT + OUTPUT), "judge_cost": None, "judge_out_of_budget": None,
        }  # fmt: skip
        body = server.bodies[0]
        assert body["temperature"] == 0
        assert body["response_format"]["json_schema"]["schema"]["required"] == ["grade"]
        once = {"again": ()}
        assert judged(server, tmp_path, collection, least=1, **once).dropped_by == [None] * 4
        assert judged(server, tmp_path, collection, least=3, **once).dropped_by == [None, "judge", "judge", None]
        assert len(server.bodies) == 6  # other thresholds ask nothing
        assert judged(server, tmp_path, collection, max_tokens=50).grades == [3, 1, 2, None]
        assert [body["max_tokens"] for body in server.bodies] == [100] * 6 + [50] * 3  # it asks what has no grade alone
        assert judged(server, tmp_path, collection, **once).grades == [3, 1, 2, None]
        assert len(server.bodies) == 9
        other = tmp_path / "other"
        few = judged(server, other, collection, budget=Budget(requests=2), concurrency=1)
        assert sum(grade is not None for grade in few.grades) == 2
        assert str(few.facts["judge_out_of_budget"]).startswith("generator.filters.judge.budget.requests=2:")
        assert len(server.bodies) == 11


def test_a_pair_without_a_grade_is_asked_about_again_nine_times_in_all(
    collection: Collection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    lacking = "1 of 4 pairs have no grade and are kept: 1 because no answer had one (another run asks again"
    with ModelServer(graded) as server:
        for run, asked in enumerate((6, 9, 12, 12)):
            caplog.clear()
            assert judged(server, tmp_path, collection).grades == [3, 1, 2, None]
            assert len(server.bodies) == asked
            assert lacking in caplog.text
            told = "tiny gave no grade to 1 pairs in an earlier run: sending them again"
            assert (told in caplog.text) is (run in (1, 2))
    seeds = {body["seed"] for body in server.bodies if "Query: blood\n" in body["messages"][0]["content"]}
    assert len(seeds) == 9  # a server that answers one seed alike is asked with another


def test_what_the_judge_refused_is_asked_again_on_request(collection: Collection, tmp_path: Path) -> None:
    def strict(body: dict[str, Any], times: int) -> Answer:
        return Answer(400, b"no policy") if "bile and toxins" in str(body["messages"]) else graded(body, times)

    with ModelServer(strict) as server:
        found = judged(server, tmp_path, collection, structured="schema", again=())
        assert (found.grades, found.facts["judge_refused"]) == ([3, 1, None, None], 1)
        server.answer = graded
        assert judged(server, tmp_path, collection).grades == [3, 1, None, None]
        assert judged(server, tmp_path, collection, again=("refused",)).grades == [3, 1, 2, None]


def test_grades_are_in_the_table_and_in_the_report(collection: Collection, tmp_path: Path) -> None:
    documents = source_documents(collection, [row for _, row in ASKED], DocumentChoice(min_words=1))
    made = [GeneratedQuery(text, text, one, "x") for (text, _), one in zip(ASKED, documents, strict=True)]
    with ModelServer(graded) as server:
        marks = judged(server, tmp_path, collection)
    write_queries(tmp_path / "queries.parquet", made, marks, "me")
    table = pq.read_table(tmp_path / "queries.parquet").to_pydict()
    assert table["grade"] == [3, 1, 2, None]
    assert table["rank_cross_encoder"] == [None] * 4
    told = describe_generation("me", Generation(made, {}), marks, 10)
    assert told["dropped"]["judge"] == 1
    assert [one["query"] for one in told["examples"]["judge"]] == ["fever and infection"]
    assert told["examples"]["judge"][0]["grade"] == 1
    assert told["judge_unanswered"] == 1


@pytest.mark.parametrize("text", ["2", '{"grade": 4}', '{"grade": "2"}', '{"grade": true}', "[]", '{"score": 2}'])
def test_what_is_no_grade_is_malformed(text: str) -> None:
    assert read_grade(json.dumps({"grade": 0, "why": "x"})) == 0
    with pytest.raises(MalformedError):
        read_grade(text)


def test_what_a_judge_lacks_is_named_by_its_own_key(collection: Collection, tmp_path: Path) -> None:
    with ModelServer(lambda *_: Answer(401)) as server:
        with pytest.raises(UserError, match=r"see generator\.filters\.judge\.key_variable"):
            judged(server, tmp_path, collection)
        with pytest.raises(ConfigError, match=r"generator\.filters\.judge\.url is not set"):
            judged(server, tmp_path, collection, url=None)
        (tmp_path / "judge.md").write_text("Is {document} good?")
        with pytest.raises(UserError, match=r"has no \{query\}"):
            judged(server, tmp_path, collection, template=str(tmp_path / "judge.md"))
    with pytest.raises(ValueError, match=r"set generator\.filters\.judge\.price\.input"):
        Judge(budget=Budget(cost=1.0))
    with pytest.raises(ValueError, match=r"nothing would be graded; set generator\.filters\.judge\.model=NAME"):
        Judge(url="http://localhost:8000/v1")
    with pytest.raises(ValueError, match="cross_encoder reranks the rankers' hits"):
        replace(LOOSE, rankers=(), cross_encoder=CrossEncoderFilter(model="x"))


def test_a_rank_that_drops_nothing_is_refused_or_told(
    collection: Collection, tiny_ranker: CrossEncoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = CrossEncoderFilter(model="x", candidates=5)
    replace(LOOSE, cross_encoder=replace(known, rank=5))
    replace(LOOSE, rankers=("dense", "bm25"), cross_encoder=replace(known, rank=10))
    replace(LOOSE, cross_encoder=replace(known, model=None, rank=6))
    with pytest.raises(ValueError, match=r"rank=6 drops nothing: .* among 5 others at most; .*candidates=5"):
        replace(LOOSE, cross_encoder=replace(known, rank=6))
    save_cross_encoder(tiny_ranker, tmp_path / "ranker")
    for rank, told in ((14, True), (1, False)):  # there are thirteen documents
        caplog.clear()
        asked = CrossEncoderFilter(model=str(tmp_path / "ranker"), precision="fp32", rank=rank)
        marks = replace(LOOSE, cross_encoder=asked).apply(
            written(*ASKED), collection, [], never_loaded, Store(tmp_path)
        )
        assert ("cross_encoder.rank=14 drops nothing" in caplog.text) is told
        assert (marks.counts["cross_encoder"] == 0) is told
