"""`/v1/embeddings` and `/tokenize`: vectors as the encoder gives them, names, limits, and errors in one shape."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import psutil
import pytest

from embfit.bundle import BundleVersions
from embfit.model import Encoder
from tests.conftest import TEXTS
from tests.server.conftest import Served, serving


def vectors(answer) -> np.ndarray:
    return np.array([item["embedding"] for item in answer.json()["data"]], np.float32)


def error(answer) -> dict:
    found = answer.json()
    assert found.keys() == {"error"}
    assert found["error"].keys() == {"message", "type", "param", "code"}
    return found["error"]


def test_vectors_are_the_encoders(served: Served, tiny_encoder: Encoder) -> None:
    answer = served.post("/v1/embeddings", input=TEXTS, model="docs")
    assert answer.status_code == 200
    np.testing.assert_allclose(vectors(answer), tiny_encoder.encode(TEXTS, "document"), atol=1e-6)
    body = answer.json()
    assert (body["object"], body["model"], body["input_type"]) == ("list", "docs@1", "document")
    assert [item["index"] for item in body["data"]] == [*range(12)]
    tokens = int(tiny_encoder.tokenize(TEXTS, "document").starts[-1])
    assert body["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert answer.headers["x-embfit-bundle"] == "docs@1"
    assert answer.headers["x-compute-tokens"] == str(tokens)
    assert len(answer.headers["x-request-id"]) == 32
    assert float(answer.headers["x-total-time"]) >= float(answer.headers["x-inference-time"]) > 0


def test_base64_holds_little_endian_float32(served: Served) -> None:
    plain = vectors(served.post("/v1/embeddings", input=TEXTS[0]))
    coded = served.post("/v1/embeddings", input=TEXTS[0], encoding_format="base64").json()["data"][0]["embedding"]
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(coded), "<f4"), plain[0])


def test_a_text_alone_and_among_others(served: Served) -> None:
    together = vectors(served.post("/v1/embeddings", input=["heart", *TEXTS]))
    alone = vectors(served.post("/v1/embeddings", input="heart"))
    np.testing.assert_allclose(together[0], alone[0], atol=1e-6)


@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        ({}, "document"),
        ({"model": "docs-query"}, "query"),
        ({"model": "docs@1-document"}, "document"),
        ({"input_type": "search_query"}, "query"),
        ({"input_type": "retrieval.passage", "model": "docs@1"}, "document"),
    ],
)
def test_kinds(served: Served, asked: dict, kind: str) -> None:
    assert served.post("/v1/embeddings", input="heart", **asked).json()["input_type"] == kind


@pytest.mark.parametrize(
    ("asked", "status", "param", "said"),
    [
        ({"input": [[1, 2, 3]]}, 400, "input", "check_embedding_ctx_length=False"),
        ({"input": [1, 2, 3]}, 400, "input", "token ids are of another tokenizer"),
        ({"input": []}, 400, "input", "there are no texts"),
        ({"input": ["heart", None]}, 400, "input", "item 1 is not a text"),
        ({}, 400, "input", "Field required"),
        ({"input": "heart", "inputs": "x"}, 400, "inputs", "not permitted"),
        ({"input": "heart", "truncate": 0}, 400, "truncate", "valid boolean"),
        ({"input": "heart", "dimensions": 8}, 400, "dimensions", "dimensions=8: docs@1 was trained for 32 dimensions"),
        ({"input": "heart", "model": "nope"}, 404, "model", "there are docs, docs-query, docs-document"),
        ({"input": "heart", "model": "docs@2"}, 412, "model", "docs@1 answers"),
        ({"input": "heart", "model": "docs-query", "input_type": "passage"}, 400, "model", "leave one out"),
        (
            {"input": ["x"] * 10_000},
            413,
            "input",
            "texts of input: 10,000 exceeds 2,048; send them in several requests",
        ),
        ({"input": ["a", "x" * 1_000_000]}, 413, "input", r"characters of input[1]: 1,000,000 exceeds 200,000"),
        ({"input": ["heart", "blood " * 40], "truncate": False}, 400, "input", "more than the 32 tokens"),
    ],
)
def test_refusals(served: Served, asked: dict, status: int, param: str, said: str) -> None:
    answer = served.post("/v1/embeddings", **asked)
    assert answer.status_code == status
    found = error(answer)
    assert found["param"] == param
    assert said in found["message"]
    assert answer.headers["x-embfit-bundle"] == "docs@1"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"input": "\xff\xfe"}', "not UTF-8, or not JSON"),
        (b'{"input": ', "the body is not JSON"),
        (b"", "the body is not a JSON object"),
        (b"null", "the body is not a JSON object"),
        (rb'{"input": "\ud800"}', "character 0 is half a character"),
        (rb'{"input": ["x"], "\ud800": 1}', "the body: "),
    ],
)
def test_bodies_that_are_none(served: Served, content: bytes, said: str) -> None:
    answer = served.client.post("/v1/embeddings", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert said in error(answer)["message"]


def test_long_texts_are_cut_and_said_to_be(served: Served) -> None:
    cut = served.post("/v1/embeddings", input=["blood " * 40, "heart"])
    assert cut.headers["x-embfit-truncated"] == "1"
    np.testing.assert_allclose(
        vectors(cut)[0], vectors(served.post("/v1/embeddings", input="blood " * 30))[0], atol=1e-6
    )
    assert "embfit_truncated_texts_total" in served.client.get("/metrics").text


def test_a_body_over_the_limit(versions: BundleVersions) -> None:
    with serving(versions, max_bytes=1000) as small:
        answer = small.post("/v1/embeddings", input="x" * 3_000_000)
        assert answer.status_code == 413
        assert "bytes of the body: 3,000,0" in error(answer)["message"]
        assert "exceeds 1,000" in error(answer)["message"]
        assert small.post("/v1/embeddings", input="x").status_code == 200


def test_a_body_of_100_megabytes(served: Served) -> None:
    content = b'{"input": "' + b"x" * 100_000_000 + b'"}'
    before = psutil.Process().memory_info().rss
    answer = served.client.post("/v1/embeddings", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert "bytes of the body: 100,000,013 exceeds 16,000,000" in error(answer)["message"]
    assert psutil.Process().memory_info().rss - before < 50e6  # the server, in this process, keeps none of it


def test_dimensions_that_were_trained(versions: BundleVersions, tiny_encoder: Encoder) -> None:
    path: Path = versions.path(1) / "manifest.json"
    path.chmod(0o644)
    path.write_text(path.read_text().replace('"dims": []', '"dims": [8]'))
    with serving(versions) as matryoshka:
        found = vectors(matryoshka.post("/v1/embeddings", input=TEXTS[:2], dimensions=8))
    whole = tiny_encoder.encode(TEXTS[:2], "document")[:, :8]
    np.testing.assert_allclose(found, whole / np.linalg.norm(whole, axis=1, keepdims=True), atol=1e-6)


def test_tokens_are_shown(served: Served, tiny_encoder: Encoder) -> None:
    body = served.post("/tokenize", input=["heart", "blood " * 40]).json()
    expected = tiny_encoder.tokenize(["heart"], "document").ids.tolist()
    assert body["data"][0] == {"index": 0, "tokens": expected, "truncated": False}
    assert (len(body["data"][1]["tokens"]), body["data"][1]["truncated"], body["max_length"]) == (32, True, 32)
