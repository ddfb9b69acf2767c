"""`/v1/search` and `/v1/rerank`: what the bundle finds, filters, limits, and a reranker's scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from embfit.bundle import BundleVersions, Hit, open_bundle
from embfit.errors import UnavailableError
from embfit.index import ExactIndex, TokenBuilder
from embfit.model import CrossEncoder, Encoder
from embfit.model.matched_words import match_words
from embfit.records import MatchedWords, WordMatch
from embfit.server.matching import _answer
from tests.bundle.conftest import Make
from tests.conftest import TEXTS, new_late_encoder
from tests.server.conftest import Served, serving
from tests.server.test_embeddings import error

QUERY = "the blood in the lungs"


@pytest.mark.parametrize("mode", ["dense", "words", "hybrid"])
def test_it_finds_what_the_bundle_finds(served: Served, mode: str) -> None:
    with open_bundle(served.service.versions.folder) as bundle:
        expected = bundle.searcher.hits(bundle.searcher.search([QUERY, "fever"], 5, mode))  # type: ignore[arg-type]
    answer = served.post("/v1/search", query=[QUERY, "fever"], k=5, mode=mode)
    assert answer.status_code == 200
    body = answer.json()
    assert (body["model"], body["mode"], answer.headers["x-embfit-bundle"]) == ("docs@1", mode, "docs@1")
    for place, hits in enumerate(expected):
        found = body["data"][place]
        assert found["index"] == place
        assert [hit["id"] for hit in found["documents"]] == [hit.id for hit in hits]
        assert [hit["score"] for hit in found["documents"]] == pytest.approx([hit.score for hit in hits], abs=1e-5)
        assert [hit["text"] for hit in found["documents"]] == [hit.text for hit in hits]


def test_an_index_that_does_not_answer_may_do_so_later(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def search(*_: object, **__: object) -> None:
        raise UnavailableError("Milvus at http://localhost:1 does not answer")

    monkeypatch.setattr(ExactIndex, "search", search)
    answer = served.post("/v1/search", query=QUERY, k=3)
    assert answer.status_code == 503  # which clients repeat
    assert error(answer)["code"] == "index_unavailable"
    assert error(answer)["message"] == "Milvus at http://localhost:1 does not answer"


def test_one_query_and_no_texts(served: Served) -> None:
    [found] = served.post("/v1/search", query=TEXTS[3], k=1, texts=False).json()["data"]
    assert found["documents"] == [{"id": "d3", "score": pytest.approx(1, abs=1e-5), "metadata": {}}]
    assert len(served.post("/v1/search", query=TEXTS[3], k=900).json()["data"][0]["documents"]) == 12


@pytest.mark.parametrize(
    ("asked", "status", "param", "said"),
    [
        ({"query": "x", "k": 0}, 400, "k", "greater than or equal to 1"),
        ({"query": "x", "k": 1001}, 413, "k", "k: 1,001 exceeds 1,000"),
        ({"query": "x", "mode": "magic"}, 400, "mode", "'dense', 'words' or 'hybrid'"),
        ({"query": "x", "where": {"section": "io"}}, 400, None, "no metadata column 'section'"),
        ({"query": "x", "matches": True}, 400, "matches", "docs@1 has one vector for each text"),
        ({"query": "x", "rerank": 3}, 400, "rerank", "set server.reranker"),
        ({"query": "x", "model": "other"}, 404, "model", "no model 'other'"),
    ],
)
def test_refusals(served: Served, asked: dict, status: int, param: str | None, said: str) -> None:
    answer = served.post("/v1/search", **asked)
    assert (answer.status_code, error(answer)["param"]) == (status, param)
    assert said in error(answer)["message"]


def test_a_version_is_pinned(served: Served) -> None:
    for wanted, status in (("docs@1", 200), ("1", 200), ("docs@2", 412), ("2", 412)):
        answer = served.client.post("/v1/search", json={"query": "x"}, headers={"x-embfit-if-version": wanted})
        assert answer.status_code == status
    assert error(answer)["type"] == "version_mismatch"


def test_documents_without_words(versions: BundleVersions, make: Make, tiny_encoder: Encoder) -> None:
    make(texts={f"d{row}": text for row, text in enumerate(TEXTS)}, kept=False)
    with serving(versions, serve=2) as bare:
        [found] = bare.post("/v1/search", query=TEXTS[3], k=1).json()["data"]
        assert found["documents"][0]["id"] == "d3"
        assert bare.client.get("/info").json()["documents"]["texts"] is False


def test_reranking_by_vectors(served: Served, tiny_encoder: Encoder) -> None:
    documents = [TEXTS[5], {"text": TEXTS[4]}, TEXTS[0]]
    body = served.post("/v1/rerank", query=QUERY, documents=documents, top_n=2, return_documents=True).json()
    cosines = tiny_encoder.encode([QUERY], "query") @ tiny_encoder.encode([TEXTS[5], TEXTS[4], TEXTS[0]], "document").T
    order = np.argsort(-cosines[0])[:2].tolist()
    assert [found["index"] for found in body["results"]] == order
    assert [found["relevance_score"] for found in body["results"]] == pytest.approx(cosines[0][order], abs=1e-5)
    assert [found["document"]["text"] for found in body["results"]] == [
        [TEXTS[5], TEXTS[4], TEXTS[0]][i] for i in order
    ]


def test_reranking_by_a_cross_encoder(
    versions: BundleVersions, tiny_ranker: CrossEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    load: Callable[..., CrossEncoder] = lambda path, device: tiny_ranker  # noqa: E731
    monkeypatch.setattr(CrossEncoder, "load", load)
    raw = tiny_ranker.score([(QUERY, text) for text in TEXTS])
    with serving(versions, reranker="RANKER") as server:
        body = server.post("/v1/rerank", query=QUERY, documents=TEXTS).json()
        assert body["model"] == "RANKER"
        order = np.argsort(-raw, kind="stable").tolist()
        assert [found["index"] for found in body["results"]] == order
        assert [found["relevance_score"] for found in body["results"]] == pytest.approx(
            1 / (1 + np.exp(-raw[order])), abs=1e-5
        )
        body = server.post("/v1/rerank", query=QUERY, documents=TEXTS, raw_scores=True).json()
        assert [found["relevance_score"] for found in body["results"]] == pytest.approx(raw[order], abs=1e-4)
        first = [hit["id"] for hit in server.post("/v1/search", query=QUERY, k=4).json()["data"][0]["documents"]]
        found = server.post("/v1/search", query=QUERY, k=2, rerank=4).json()["data"][0]["documents"]
        best = sorted(first, key=lambda name: -raw[int(name[1:])])[:2]
        assert [hit["id"] for hit in found] == best


def test_filters(versions: BundleVersions, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.bundle import conftest

    plain = conftest.documents

    def with_section(texts: dict[str, str]):
        collection = plain(texts)
        sections = ["lungs" if "lungs" in text else "other" for text in texts.values()]
        return type(collection)(
            collection.name, collection.corpus.add_column("section", sections), collection.queries, collection.qrels
        )

    monkeypatch.setattr(conftest, "documents", with_section)
    make()
    with serving(versions, serve=2) as server:
        [found] = server.post("/v1/search", query="heart", where={"section": "lungs"}).json()["data"]
        assert {hit["id"] for hit in found["documents"]} == {"d4", "d10"}
        assert {hit["metadata"]["section"] for hit in found["documents"]} == {"lungs"}
        answer = server.post("/v1/search", query="heart", where={"section": {"a": 1}})
        assert answer.status_code == 400


def test_matched_words_of_late_interaction(
    versions: BundleVersions, make: Make, tokenizer: PreTrainedTokenizerFast
) -> None:
    encoder = new_late_encoder(tokenizer)
    make(encoder=encoder, builder=TokenBuilder())
    with serving(versions, serve=2) as running:
        assert running.client.get("/info").json()["model"]["late_interaction"] is True
        plain = running.post("/v1/search", query=QUERY, k=3).json()["data"][0]["documents"]
        answer = running.post("/v1/search", query=[QUERY, "fever"], k=3, matches=True)
        shown, other = (one["documents"] for one in answer.json()["data"])
        assert [one["id"] for one in shown] == [one["id"] for one in plain]
        assert [one["score"] for one in shown] == pytest.approx([one["score"] for one in plain], abs=1e-5)
        assert len(other) == 3
        asked = encoder.embed([QUERY], "query")
        for one in shown:
            read = encoder.embed([one["text"]], "document")
            [expected] = match_words(
                QUERY, [one["text"]], asked, read, encoder.spans("query"), encoder.spans("document")
            )
            words = [(word["word"], word["found"]) for word in one["matched"]["words"]]
            assert words == [(word.word, word.found) for word in expected.words]
            assert [tuple(span[:2]) for span in one["matched"]["text"]] == [span[:2] for span in expected.found]
            shares = [span[2] / expected.score for span in expected.found]
            assert [span[2] for span in one["matched"]["text"]] == pytest.approx(shares, abs=1e-4)
            assert one["matched"]["title"] == []
        assert running.post("/v1/search", query=QUERY, k=1, matches=True, texts=False).status_code == 200


def test_matched_words_are_placed_in_title_and_text() -> None:
    matched = MatchedWords(0.5, [WordMatch("a", None, 0.1)], 0.1, [(0, 5, 0.1), (6, 9, 0.2), (10, 14, 0.1)])
    hit = Hit("d", 0.5, 0, title="Heart", text="and lung")
    found = _answer(hit, matched)
    assert found["title"] == [(0, 5, pytest.approx(0.2))]
    assert found["text"] == [(0, 3, pytest.approx(0.4)), (4, 8, pytest.approx(0.2))]
    assert found["words"] == [{"word": "a", "found": None, "share": pytest.approx(0.2)}]


@pytest.mark.parametrize("builder", [TokenBuilder(), TokenBuilder(candidates="bm25", shortlist=6)])
def test_late_interaction_is_served_as_the_bundle_computes_it(
    versions: BundleVersions, make: Make, tokenizer: PreTrainedTokenizerFast, builder: TokenBuilder
) -> None:
    make(encoder=new_late_encoder(tokenizer), builder=builder)
    versions.point({"champion": 2})
    with open_bundle(versions.folder) as bundle, serving(versions) as running:
        expected = bundle.searcher.hits(bundle.searcher.search([QUERY, "fever"], 5))
        answer = running.post("/v1/search", query=[QUERY, "fever"], k=5, mode="dense").json()
        for hits, found in zip(expected, answer["data"], strict=True):
            assert [hit["id"] for hit in found["documents"]] == [hit.id for hit in hits]
            assert [hit["score"] for hit in found["documents"]] == pytest.approx([hit.score for hit in hits], abs=1e-5)
        ordered = running.post("/v1/rerank", query=QUERY, documents=TEXTS[:4]).json()["results"]
        scores = bundle.encoder.embed([QUERY], "query").scores(bundle.encoder.embed(TEXTS[:4], "document"))[0]
        assert [one["index"] for one in ordered] == np.argsort(-scores, kind="stable").tolist()
        refused = running.post("/v1/embeddings", input="a")
        assert (refused.status_code, error(refused)["param"]) == (400, "model")
