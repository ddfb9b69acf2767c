"""The server as a whole: keys, health, metrics, slow and vanished clients, a full queue, the schema."""

from __future__ import annotations

import http.client
import re
import socket
import threading
import time
from collections.abc import Callable

import pytest

from embfit.bundle import BundleVersions
from embfit.errors import ConfigError
from embfit.server import ServerSettings
from embfit.server.lifecycle import listen
from tests.conftest import TEXTS
from tests.server.conftest import Served, serving, until
from tests.server.test_embeddings import error


class Gate:
    """Holds the model back until it is opened, and counts the texts that it got."""

    def __init__(self, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.texts = 0
        model = served.service.live.texts
        plain = model.compute

        def compute(contents):
            self.texts += len(contents)
            assert self.open.wait(20)
            return plain(contents)

        object.__setattr__(model, "compute", compute)


def measured(served: Served, name: str) -> float:
    """Return the value of a metric, 0 where it has none yet."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", served.client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def together(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call)
    thread.start()
    return thread


def test_health_and_facts(served: Served) -> None:
    assert served.client.get("/health").json() == {"status": "ok"}
    assert served.client.get("/ready").json() == {"status": "ready"}
    assert [model["id"] for model in served.client.get("/v1/models").json()["data"]] == [
        "docs",
        "docs-query",
        "docs-document",
    ]
    facts = served.client.get("/info").json()
    assert (facts["bundle"], facts["follows"], facts["documents"]["count"]) == ("docs@1", "champion", 12)
    assert facts["model"]["dimensions"] == [32]
    assert facts["limits"]["max_texts"] == 2048


def test_metrics(served: Served) -> None:
    before = measured(served, 'embfit_requests_total{code="200",route="/v1/embeddings"}')
    tokens = measured(served, "embfit_prompt_tokens_total")
    refused = measured(served, 'embfit_request_failures_total{reason="validation"}')
    used = served.post("/v1/embeddings", input=TEXTS).json()["usage"]["prompt_tokens"]
    served.post("/v1/embeddings", input=[])
    assert measured(served, 'embfit_requests_total{code="200",route="/v1/embeddings"}') == before + 1
    assert measured(served, "embfit_prompt_tokens_total") == tokens + used
    assert measured(served, 'embfit_request_failures_total{reason="validation"}') == refused + 1
    assert (
        'embfit_bundle_info{backend="torch",index="exact",model="tiny",name="docs",precision="fp32",version="1"} 1.0'
        in (served.client.get("/metrics").text)
    )


def test_what_is_not_there(served: Served) -> None:
    answer = served.client.get("/nothing")
    assert (answer.status_code, error(answer)["message"]) == (
        404,
        "there is no route /nothing; /docs lists the routes",
    )
    answer = served.client.get("/v1/search")
    assert (answer.status_code, error(answer)["type"]) == (405, "invalid_request_error")
    assert answer.headers["allow"] == "POST"


def test_request_ids_are_kept_if_they_are_fit(served: Served) -> None:
    assert served.client.get("/health", headers={"x-request-id": "job-7.a"}).headers["x-request-id"] == "job-7.a"
    assert served.client.get("/health", headers={"x-request-id": "a b"}).headers["x-request-id"] != "a b"


def test_the_schema_says_what_comes(served: Served) -> None:
    schema = served.client.get("/openapi.json").json()
    asked = {"/v1/embeddings", "/v1/search", "/v1/rerank", "/tokenize"}
    told = {"/v1/models", "/info", "/health", "/ready", "/metrics"}
    assert {*schema["paths"]} == asked | told
    for path in schema["paths"].values():
        for operation in path.values():
            assert "422" not in operation["responses"]
    assert "429" in schema["paths"]["/v1/embeddings"]["post"]["responses"]
    assert served.client.get("/docs").status_code == 200


def test_a_key(versions: BundleVersions, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"server\.api_key_env=SEARCH_KEY: the environment variable is not set"):
        ServerSettings(api_key_env="SEARCH_KEY").api_key()
    monkeypatch.setenv("SEARCH_KEY", "sesame")
    with serving(versions, api_key_env="SEARCH_KEY") as locked:
        for given in ({}, {"authorization": "Bearer sesam"}, {"authorization": "Basic sesame"}):
            answer = locked.client.post("/v1/search", json={"query": "x"}, headers=given)
            assert (answer.status_code, error(answer)["code"]) == (401, "invalid_api_key")
        for path in ("/info", "/metrics", "/docs", "/openapi.json"):
            assert locked.client.get(path).status_code == 401
        assert locked.client.get("/health").status_code == 200
        right = {"authorization": "Bearer sesame"}
        assert locked.client.post("/v1/search", json={"query": "x"}, headers=right).status_code == 200


def test_a_full_queue(versions: BundleVersions, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(versions, queue=3, max_texts=3) as small:
        gate = Gate(small, monkeypatch)
        threads = [together(lambda: small.post("/v1/embeddings", input="x"))]
        until(lambda: gate.texts == 1)
        threads.append(together(lambda: small.post("/v1/embeddings", input=["a", "b", "c"])))
        until(lambda: small.service.batcher.waiting == 3)
        answer = small.post("/v1/embeddings", input="y")
        assert (answer.status_code, error(answer)["type"]) == (429, "overloaded")
        assert "3 texts wait for the model, and server.queue=3" in error(answer)["message"]
        assert int(answer.headers["retry-after"]) >= 1
        assert int(answer.headers["retry-after-ms"]) >= 50
        gate.open.set()
        for thread in threads:
            thread.join()
        assert small.post("/v1/embeddings", input="y").status_code == 200


def test_who_waits_too_long(versions: BundleVersions, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(versions, timeout=0.05) as slow:
        gate = Gate(slow, monkeypatch)
        answer = slow.post("/v1/embeddings", input="x")
        gate.open.set()
        assert (answer.status_code, error(answer)["code"]) == (503, "timeout")


def test_a_client_that_has_gone_costs_nothing(versions: BundleVersions, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(versions) as server:
        gate = Gate(server, monkeypatch)
        thread = together(lambda: server.post("/v1/embeddings", input="x"))
        until(lambda: gate.texts == 1)
        body = b'{"input": ["a", "b", "c", "d"]}'
        head = (
            f"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        )
        with socket.create_connection(server.address) as client:
            client.sendall(head.encode() + b"\r\n\r\n" + body)
            until(lambda: server.service.batcher.waiting == 4)
        until(lambda: server.service.batcher.waiting == 0)
        gate.open.set()
        thread.join()
        assert server.post("/v1/embeddings", input="y").status_code == 200
        assert gate.texts == 2
        assert measured(server, 'embfit_request_failures_total{reason="cancelled"}') == 1
        until(lambda: server.service.live.users == 0)


def dripped(server: Served, begun: bytes) -> bytes:
    """Begin a request, send a byte every 20 ms, which never completes it, and return what the server says to that."""
    with socket.create_connection(server.address) as client:
        client.sendall(begun)
        client.settimeout(0.02)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                client.sendall(b"a")
                return client.recv(1000)
            except TimeoutError:
                continue
            except ConnectionError:  # it was closed
                return b""
    raise AssertionError("the server waits without a limit")


def test_slow_clients(versions: BundleVersions) -> None:
    with serving(versions, receive_seconds=0.2) as server:
        with socket.create_connection(server.address) as client:  # half a body
            client.sendall(
                b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                b'content-length: 50\r\n\r\n{"input'
            )
            client.settimeout(20)
            assert client.recv(1000).startswith(b"HTTP/1.1 408 ")
        with socket.create_connection(server.address) as client:  # half a head
            client.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nx-slow: ")
            client.settimeout(20)
            assert client.recv(1000) == b""
        body = (
            b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9999\r\n\r\n"
        )
        assert dripped(server, body).startswith(b"HTTP/1.1 408 ")
        assert dripped(server, b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nx-slow: ") == b""
        with socket.create_connection(server.address) as client:  # a half-closed socket
            client.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{")
            client.shutdown(socket.SHUT_WR)
        assert server.post("/v1/embeddings", input="y").status_code == 200


def test_a_connection_stays_open_between_requests(versions: BundleVersions) -> None:
    with serving(versions, receive_seconds=0.2, keep_alive_seconds=60) as server:
        connection = http.client.HTTPConnection(*server.address)
        connection.request("GET", "/health")
        assert connection.getresponse().read()
        sock = connection.sock
        time.sleep(0.8)  # longer than a client has to send a request
        connection.request("GET", "/health")
        assert connection.getresponse().status == 200
        assert connection.sock is sock
        connection.close()
    with serving(versions, keep_alive_seconds=1) as server, socket.create_connection(server.address) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        client.settimeout(20)
        while client.recv(1000):
            pass  # until the server closes it


def test_what_was_taken_is_answered_before_it_stops(versions: BundleVersions, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[int] = []
    with serving(versions) as server:
        gate = Gate(server, monkeypatch)
        threads = [
            together(lambda: answers.append(server.post("/v1/embeddings", input=["x", "y"]).status_code))
            for _ in range(5)
        ]
        until(lambda: gate.texts + server.service.batcher.waiting == 10)
        server.server.should_exit = True
        time.sleep(0.3)
        gate.open.set()
        for thread in threads:
            thread.join()
    assert answers == [200] * 5
    assert not server.service.batcher.alive


def test_a_dead_thread_is_told(versions: BundleVersions) -> None:
    with serving(versions) as server:
        server.service.batcher.close(20)
        assert server.client.get("/health").status_code == 503
        assert server.client.get("/ready").status_code == 503
        assert server.post("/v1/embeddings", input="x").status_code == 503


def test_a_text_that_fails(versions: BundleVersions, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(versions) as server:

        def compute(contents):
            raise RuntimeError("no luck")

        object.__setattr__(server.service.live.texts, "compute", compute)
        answer = server.post("/v1/embeddings", input="x")
        assert (answer.status_code, error(answer)["code"]) == (500, "text_failed")
        assert answer.headers["x-should-retry"] == "false"


def test_addresses() -> None:
    with listen(ServerSettings(port=0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"server\.port={port}: Address already in use; choose another"):
            listen(ServerSettings(port=port))
    with pytest.raises(ConfigError, match=r"server\.queue=10 has no room for the 2048 texts of one request"):
        ServerSettings(queue=10)
