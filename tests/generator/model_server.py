"""A server that speaks OpenAI's chat completions, with faults on demand, for tests over real HTTP."""

from __future__ import annotations

import json
import re
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

INPUT, OUTPUT = 40, 10  # tokens that each answer reports


@dataclass(frozen=True)
class Answer:
    """What the server sends: a status, a body and headers, or a fault in their place."""

    status: int = 200
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    reset: bool = False
    drip: float | None = None  # seconds between two bytes


def queries(*texts: str) -> Answer:
    """Answer with queries in the form that is asked for."""
    return says(json.dumps({"queries": list(texts)}))


def says(text: str, finish: str = "stop") -> Answer:
    """Answer with a text of the model's."""
    usage = {"prompt_tokens": INPUT, "completion_tokens": OUTPUT}
    choice = {"message": {"role": "assistant", "content": text}, "text": text, "finish_reason": finish}
    return Answer(body=json.dumps({"choices": [choice], "usage": usage}).encode())


def about(body: Mapping[str, Any]) -> str:
    """Return the word that stands for the document of a request, such as `doc7`; else the document."""
    prompt = body["messages"][0]["content"] if "messages" in body else body["prompt"]
    found = re.findall(r"doc\d+", prompt)
    return found[-1] if found else prompt.split('"""')[1] if '"""' in prompt else prompt.rpartition("Document: ")[2]


class _Server(ThreadingHTTPServer):
    """Says nothing of clients that have gone."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print what went wrong, unless the client has gone."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class ModelServer:
    """Answers requests, each in a thread; counts what it was asked and how many requests were under way at once.

    Args:
        answer: makes the answer of a request's body and of how often the same document was asked about before.
        certificate: a file with a certificate and its key, for HTTPS.
    """

    def __init__(self, answer: Callable[[dict[str, Any], int], Answer], certificate: Path | None = None) -> None:
        self.answer = answer
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()  # whose answers were sent whole
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.times: list[float] = []
        self.most = self._now = 0
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def requests(self) -> int:
        return sum(self.asked.values())

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                content = self.rfile.read(length)
                if len(content) < length:  # the client has gone while it sent
                    self.close_connection = True
                    return
                body = json.loads(content)
                with outer._lock:
                    before = outer.asked[about(body)]
                    outer.asked[about(body)] += 1
                    outer.bodies.append(body)
                    outer.keys.add(self.headers.get("Authorization", ""))
                    outer.times.append(time.monotonic())
                    outer._now += 1
                    outer.most = max(outer.most, outer._now)
                try:
                    answer = outer.answer(body, before)
                finally:
                    with outer._lock:
                        outer._now -= 1
                self._send(answer)
                with outer._lock:
                    outer.answered[about(body)] += answer.status == 200 and not answer.reset and answer.drip is None

            def _send(self, answer: Answer) -> None:
                if answer.reset:
                    self.close_connection = True
                    self.connection.close()
                    return
                content = answer.body or b""
                head = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
                self.wfile.write(f"HTTP/1.1 {answer.status} X\r\n{head}Content-Length: {len(content)}\r\n\r\n".encode())
                if answer.drip is None:
                    self.wfile.write(content)
                    return
                for byte in content:
                    time.sleep(answer.drip)
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()

            def handle(self) -> None:
                with suppress(OSError):  # the client has gone
                    super().handle()

            def log_message(self, *_: object) -> None:
                pass

        return Handler
