"""A served model against the one that was evaluated, over real HTTP."""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from embfit.errors import ConfigError, UserError
from embfit.evaluator import Retrieval
from embfit.evaluator.served import Server, measure_drift
from embfit.evaluator.served_vectors import served_vectors
from embfit.evaluator.systems import EndpointSystem, EvaluationContext
from embfit.model import Encoder, Pretrained, save_encoder
from embfit.records import Collection
from embfit.store import Store
from tests.conftest import new_late_encoder
from tests.evaluator.measured import changed

Serve = Callable[..., str]


class RefusalError(Exception):
    """Raised by what embeds: the server answers with this."""

    def __init__(self, code: int, **headers: str) -> None:
        super().__init__(code)
        self.code = code
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embfit.http_requests.PAUSES", (0.01, 0.02))


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server of /v1/embeddings that answers with what a function makes of the texts, and return its address."""
    servers: list[ThreadingHTTPServer] = []

    def start(embed: Callable[[list[str]], np.ndarray], key: str | None = None) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                right = self.path == "/v1/embeddings" and (not key or self.headers["Authorization"] == f"Bearer {key}")
                try:
                    vectors = embed(body["input"])
                except RefusalError as refusal:
                    self.send_response(refusal.code)
                    for name, value in refusal.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    return
                rows = [{"index": row, "embedding": vector.tolist()} for row, vector in enumerate(vectors)]
                answer = json.dumps({"object": "list", "data": rows[::-1]}).encode()  # an order of its own
                self.send_response(200 if right else 401)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/v1"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def context(tiny_encoder: Encoder, small_collection: Collection, store: Store, tmp_path: Path) -> EvaluationContext:
    save_encoder(tiny_encoder, tmp_path / "tiny")
    return Retrieval().context(small_collection, store, Pretrained(str(tmp_path / "tiny"), precision="fp32"))


def served(context: EvaluationContext, endpoint: EndpointSystem) -> EvaluationContext:
    return changed(context, systems={**context.systems, "served": endpoint})


def test_the_same_model_served_is_the_same_system(context: EvaluationContext, serve: Serve) -> None:
    url = serve(lambda texts: context.encoder.encode(texts, "document"))
    found = served(context, EndpointSystem(url, batch=5)).evaluation("served")
    base = context.evaluation("base")
    assert found.metrics == base.metrics
    for query, documents in base.ranking.documents.items():
        assert dict(found.ranking.documents[query]) == pytest.approx(dict(documents), abs=1e-6)
    assert found.facts["drift"]["texts"] == 2 + 12
    assert found.facts["drift"]["most"] < 1e-6


def test_a_model_of_several_vectors_a_text_is_no_measure_of_a_server(
    context: EvaluationContext, tokenizer: PreTrainedTokenizerFast, serve: Serve
) -> None:
    late = new_late_encoder(tokenizer)
    url = serve(lambda texts: context.encoder.encode(texts, "document"))
    measured = changed(context, load=lambda: late, systems={"served": EndpointSystem(url)})
    with pytest.raises(UserError, match="tiny late interaction gives several vectors for each text"):
        measured.evaluation("served")


def stretched(vectors: np.ndarray, texts: list[str]) -> np.ndarray:
    """The same directions, in lengths of 0.5 to 3.4 by the text."""
    return vectors * np.array([0.5 + len(text) % 30 / 10 for text in texts])[:, None]


def test_what_a_server_does_not_normalise_is_normalised(context: EvaluationContext, serve: Serve) -> None:
    url = serve(lambda texts: stretched(context.encoder.encode(texts, "document"), texts))
    base, found = context.evaluation("base"), served(context, EndpointSystem(url)).evaluation("served")
    for query, documents in base.ranking.documents.items():
        assert dict(found.ranking.documents[query]) == pytest.approx(dict(documents), abs=1e-6)
    for as_they_come in (EndpointSystem(url, tolerance=None), EndpointSystem(url, normalize=False, tolerance=9.0)):
        scores = [
            score
            for documents in served(context, as_they_come).evaluation("served").ranking.documents.values()
            for _, score in documents
        ]
        assert max(scores) > 1.5
    with pytest.raises(UserError, match="half the squared distance"):
        served(context, EndpointSystem(url, normalize=False)).evaluation("served")


def test_where_the_model_does_not_normalise_lengths_are_drift(context: EvaluationContext, serve: Serve) -> None:
    as_is = changed(context, model=replace(context.model, normalize=False))
    url = serve(lambda texts: stretched(as_is.encoder.encode(texts, "document"), texts))
    with pytest.raises(
        UserError, match=r"differ by up to \S+ \(half the squared distance, relative to the squared length"
    ):
        served(as_is, EndpointSystem(url)).evaluation("served")
    same = serve(lambda texts: as_is.encoder.encode(texts, "document"))
    found = served(as_is, EndpointSystem(same)).evaluation("served")
    assert found.facts["drift"]["most"] < 1e-9
    assert found.metrics == as_is.evaluation("base").metrics


def test_other_weights_are_an_error_with_the_distance(context: EvaluationContext, serve: Serve) -> None:
    def drifted(texts: list[str]) -> np.ndarray:
        vectors = context.encoder.encode(texts, "document")
        return vectors + 0.05 * np.roll(vectors, 1, axis=1)

    url = serve(drifted)
    with pytest.raises(UserError, match=r"does not serve model.path=\S+tiny: of 14 texts vectors differ by up"):
        served(context, EndpointSystem(url)).evaluation("served")
    found = served(context, EndpointSystem(url, tolerance=None)).evaluation("served")
    assert "drift" not in found.facts
    wide = serve(lambda texts: np.ones((len(texts), 3)))
    with pytest.raises(UserError, match=r"served vectors have 3 dimensions, the model's own 32"):
        served(context, EndpointSystem(wide)).evaluation("served")


def test_prompts_are_added_where_the_server_does_not(context: EvaluationContext, serve: Serve) -> None:
    seen: list[str] = []

    def embed(texts: list[str]) -> np.ndarray:
        seen.extend(texts)
        return np.ones((len(texts), 2))

    endpoint = EndpointSystem(serve(embed), query_prompt="query: ", document_prompt="passage: ", tolerance=None)
    served(context, endpoint).evaluation("served")
    assert [text.split()[0] for text in seen] == ["query:"] * 2 + ["passage:"] * 12


def test_keys_come_from_the_environment(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    url = serve(lambda texts: np.ones((len(texts), 2)), key="secret")
    monkeypatch.setenv("SERVED_KEY", "secret")
    assert Server(url, key_variable="SERVED_KEY").encode(["a", "b"], 2, "x").shape == (2, 2)
    with pytest.raises(UserError, match=r"answers 401"):
        Server(url).encode(["a"], 1, "x")
    with pytest.raises(UserError, match=r"^key_variable=OTHER_KEY: the environment variable is not set; put"):
        Server(url, key_variable="OTHER_KEY").encode(["a"], 1, "x")


def test_a_server_that_is_not_there_or_answers_strangely(context: EvaluationContext, serve: Serve) -> None:
    with pytest.raises(UserError, match=r"http://127.0.0.1:9/v1/embeddings cannot be reached"):
        Server("http://127.0.0.1:9/v1").encode(["a"], 1, "x")
    with pytest.raises(UserError, match=r"2 texts gave an answer of shape \(1, 2\)"):
        Server(serve(lambda texts: np.ones((1, 2)))).encode(["a", "b"], 2, "x")
    with pytest.raises(UserError, match=r"2 texts gave an answer of shape \(2, 0\)"):
        Server(serve(lambda texts: np.ones((2, 0)))).encode(["a", "b"], 2, "x")
    with pytest.raises(UserError, match=r"a vector of its answer is all zeros"):
        Server(serve(lambda texts: np.eye(2)[[0, 0]] - np.eye(2)[[1, 0]] * [[0], [1]])).encode(["a", "b"], 2, "x")
    for wrong in ("http://[::1", "http://", "http://host:port/v1", "http://ho st/v1"):
        with pytest.raises(UserError, match=r"is not the address of a server, such as http://localhost:8080/v1"):
            Server(wrong).encode(["a"], 1, "x")
    with pytest.raises(UserError, match=r"'file:///etc' is not the address of a server"):
        Server("file:///etc").encode(["a"], 1, "x")
    with pytest.raises(ConfigError, match=r"evaluator.systems.served.url is not set"):
        served(context, EndpointSystem()).evaluation("served")


def test_drift_is_one_less_the_cosine() -> None:
    served, own = np.array([[2.0, 0.0], [0.0, 3.0]]), np.array([[1.0, 0.0], [1.0, 1.0]])
    found = measure_drift(served, own)
    assert (found.texts, found.mean, found.most) == (2, pytest.approx((1 - 0.5**0.5) / 2), pytest.approx(1 - 0.5**0.5))
    assert measure_drift(served, own, lengths=True).most == pytest.approx((1 + 4) / 2 / 2)
    assert measure_drift(own * [[2], [2]], own, lengths=True).mean == pytest.approx(0.5)
    assert measure_drift(own[:, ::-1], own, lengths=True).most == pytest.approx(1)  # at right angles: 1 - cosine


def answering(port: list[int], answers: list[bytes], pause: float = 0.0) -> threading.Thread:
    """Answer requests with these bytes, one connection each, and break the connection off."""
    listening = socket.create_server(("127.0.0.1", 0))
    port.append(listening.getsockname()[1])

    def serve() -> None:
        with listening:
            for answer in answers:
                connection, _ = listening.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)
                    time.sleep(pause)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def test_a_refusal_that_breaks_off_is_still_one() -> None:
    port: list[int] = []
    body = b'{"data": [{"index": 0, "embedding": [1.0, 2.0]}]}'
    refusal = b"HTTP/1.1 %d No\r\nContent-Length: 1000\r\n\r\n"
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    answering(port, [refusal % 503, whole], pause=0.05)
    assert Server(f"http://127.0.0.1:{port[0]}/v1").encode(["a"], 1, "x").tolist() == [[1.0, 2.0]]
    answering(port, [refusal % 400], pause=0.05)
    with pytest.raises(UserError, match=r"answers 400 No: \(the rest of its answer did not arrive\)"):
        Server(f"http://127.0.0.1:{port[1]}/v1").encode(["a"], 1, "x")


def test_a_vector_of_a_text_that_was_not_sent() -> None:
    port: list[int] = []
    body = json.dumps({"data": [{"index": 1, "embedding": [1.0]}, {"index": 1, "embedding": [2.0]}]}).encode()
    answering(port, [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body], pause=0.05)
    with pytest.raises(UserError, match=r"are numbered 1 to 1, and not each of 0 to 1 once"):
        Server(f"http://127.0.0.1:{port[0]}/v1").encode(["a", "b"], 2, "x")


def test_a_server_that_takes_too_long(serve: Serve) -> None:
    def embed(texts: list[str]) -> np.ndarray:
        time.sleep(0.3)
        return numbers(texts)

    with pytest.raises(UserError, match=r"did not answer within 0.1 s; raise the setting timeout, or lower batch"):
        Server(serve(embed), timeout=0.1).encode(["a"], 1, "x")


def numbers(texts: list[str]) -> np.ndarray:
    """A vector of each text that no other has: its length, and a one."""
    return np.array([[len(text), 1.0] for text in texts])


def test_a_busy_server_is_asked_again(serve: Serve) -> None:
    refused: list[str] = []

    def embed(texts: list[str]) -> np.ndarray:
        if refused.count(texts[0]) < 2:
            refused.append(texts[0])
            raise RefusalError(429 if len(refused) % 2 else 503)
        return numbers(texts)

    texts = ["a" * length for length in range(1, 8)]
    np.testing.assert_array_equal(Server(serve(embed), batch=2).encode(texts, 7, "x"), numbers(texts))
    assert sorted(refused) == sorted(texts[::2] * 2)


def test_it_is_left_alone_for_as_long_as_it_says(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[object] = []

    def sleep(seconds: float) -> None:
        events.append(seconds)

    def embed(texts: list[str]) -> np.ndarray:
        events.append("asked")
        if events.count("asked") == 1:
            raise RefusalError(429, Retry_After="7")
        return numbers(texts)

    monkeypatch.setattr("embfit.http_requests.time", SimpleNamespace(monotonic=lambda: 100.0, sleep=sleep))
    Server(serve(embed)).encode(["a"], 1, "x")
    assert events == [0.0, "asked", 7.0, "asked"]
    with pytest.raises(UserError, match="answers 429"):  # not waited for
        Server(serve(lambda texts: refuse(429, Retry_After="Wed, 21 Oct 2099 07:28:00 GMT"))).encode(["a"], 1, "x")


def refuse(code: int, **headers: str) -> np.ndarray:
    raise RefusalError(code, **headers)


def test_three_tries_are_all(serve: Serve) -> None:
    tries: list[int] = []

    def embed(texts: list[str]) -> np.ndarray:
        tries.append(1)
        raise RefusalError(503 if texts == ["busy"] else 400)

    with pytest.raises(UserError, match="answers 503"):
        Server(serve(embed)).encode(["busy"], 1, "x")
    assert len(tries) == 3
    with pytest.raises(UserError, match="answers 400"):
        Server(serve(embed)).encode(["wrong"], 1, "x")
    assert len(tries) == 4


def test_a_few_requests_are_under_way_at_once(serve: Serve) -> None:
    lock, under_way, most = threading.Lock(), 0, 0

    def embed(texts: list[str]) -> np.ndarray:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.05)
        with lock:
            under_way -= 1
        return numbers(texts)

    texts = ["a" * length for length in range(1, 13)]
    found = Server(serve(embed), batch=1, in_flight=3).encode(texts, 12, "x")
    np.testing.assert_array_equal(found, numbers(texts))
    assert 2 <= most <= 3


def test_after_a_failure_only_the_rest_is_sent(context: EvaluationContext, serve: Serve) -> None:
    seen: list[str] = []
    fails = True

    def embed(texts: list[str]) -> np.ndarray:
        seen.extend(texts)
        if fails and len(seen) > 7:
            raise RefusalError(402)
        return context.encoder.encode(texts, "document")

    endpoint = EndpointSystem(serve(embed), batch=1, in_flight=1, tolerance=None)
    with pytest.raises(UserError, match="answers 402"):
        served(context, endpoint).evaluation("served")
    assert len(seen) == 8  # two queries, five documents, and the one that failed
    fails = False
    seen.clear()
    again = served(changed(context, store=Store(context.store.dir)), endpoint).evaluation("served")
    assert len(seen) == (2 + 5) + 7  # those that are compared, and those without a vector
    assert again.metrics == context.evaluation("base").metrics
    seen.clear()
    assert served(context, endpoint).evaluation("served").facts["reused"]
    assert len(seen) == 2 + 8


def test_vectors_of_other_weights_are_forgotten(
    context: EvaluationContext, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    turned = False

    def embed(texts: list[str]) -> np.ndarray:
        vectors = context.encoder.encode(texts, "document")
        return vectors[:, ::-1] if turned else vectors

    server = Server(serve(embed))
    before, _ = served_vectors(server, context.collection, "document", range(12), "", context.store)
    before = np.array(before)
    turned = True
    after, sent = served_vectors(server, context.collection, "document", range(12), "", context.store)
    assert sent == 12
    np.testing.assert_array_equal(after, before[:, ::-1])
    assert "returns other vectors than before" in caplog.text
