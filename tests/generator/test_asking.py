"""Asking a real server over HTTP: each fault that one can have, and what is kept, asked again and charged."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embfit.errors import UserError
from embfit.generator.answers import MalformedError, read_queries, read_reply
from embfit.generator.asking import Asking, ask_all
from embfit.generator.asking_settings import AskingSettings
from embfit.generator.budget import Budget, Price, Spending
from embfit.generator.client import ApiClient
from embfit.generator.journal import Journal
from embfit.generator.plan import QueryRequest, scope_of
from tests.generator.model_server import INPUT, OUTPUT, Answer, ModelServer, about, queries, says

Make = Callable[..., list[QueryRequest]]
USED = INPUT + OUTPUT
SETTINGS = AskingSettings("tiny", concurrency=4, tries=3)


def ask(
    server: ModelServer,
    journal: Path,
    requests: Sequence[QueryRequest],
    settings: AskingSettings = SETTINGS,
    timeout: float = 5.0,
    key: str | None = None,
) -> tuple[Asking, dict[str, str]]:
    """Ask for what is not answered; return what was counted and each document's state."""
    scope = scope_of(requests)
    with Journal(journal) as opened:
        opened.plan([request.entry for request in requests], scope)
        waiting = [request for request in requests if opened.answer(request.entry).state == "planned"]
        done = len(requests) - len(waiting)
        address = f"{server.url}/{'chat/completions' if settings.form == 'chat' else 'completions'}"
        asking = ask_all(address, key, timeout, opened, settings, scope, waiting, done)
        return asking, states(opened, requests)


def states(journal: Journal, requests: Sequence[QueryRequest]) -> dict[str, str]:
    return {request.document.id: journal.answer(request.entry).state for request in requests}


def spent(journal: Path, requests: Sequence[QueryRequest]) -> Spending:
    with Journal(journal) as opened:
        opened.plan([request.entry for request in requests], "look")
        return opened.spent("look")


def test_everything_is_asked_once(tmp_path: Path, make_requests: Make) -> None:
    requests = make_requests(20)
    with ModelServer(lambda body, _: queries(f"what is {about(body)}", "second")) as server:
        settings = replace(SETTINGS, sampling={"temperature": 0.5}, price=Price(1.0, 2.0), max_tokens=77)
        _, found = ask(server, tmp_path / "j", requests, settings)
        ask(server, tmp_path / "j", requests, settings)
    assert set(found.values()) == {"answered"}
    assert set(server.asked.values()) == {1}
    assert server.requests == 20
    assert server.most <= 4
    total = spent(tmp_path / "j", requests)
    assert (total.requests, total.tokens) == (20, 20 * USED)
    assert total.cost == pytest.approx(20 * (INPUT + 2 * OUTPUT) / 1e6)
    [body] = [body for body in server.bodies if about(body) == "doc3"]
    assert (body["model"], body["temperature"], body["max_tokens"], body["seed"]) == ("tiny", 0.5, 77, requests[3].seed)
    assert body["response_format"]["json_schema"]["schema"]["required"] == ["queries"]


def test_a_completion_ends_at_the_line(tmp_path: Path, make_requests: Make) -> None:
    requests = make_requests(3, 1, "completion")
    with ModelServer(lambda body, _: says(f" how is {about(body)}?\nDocument: next")) as server:
        _, found = ask(server, tmp_path / "j", requests, replace(SETTINGS, form="completion"))
    assert set(found.values()) == {"answered"}
    assert server.bodies[0]["stop"] == ["\n"]
    assert server.bodies[0]["prompt"].endswith("\nQuestion:")
    assert read_queries(" how is doc1?\nDocument: next", 1, "completion") == ["how is doc1?"]


def test_a_completion_that_was_cut_off_is_no_query(tmp_path: Path, make_requests: Make) -> None:
    requests = make_requests(2, 1, "completion")
    cut = says("how is the heart of", "length")
    with ModelServer(lambda body, _: cut if about(body) == "doc1" else says("what is it?")) as server:
        _, found = ask(server, tmp_path / "j", requests, replace(SETTINGS, form="completion"))
    assert found == {"d0": "answered", "d1": "malformed"}
    assert spent(tmp_path / "j", requests).tokens == 4 * USED  # the server said what it took


def test_a_completion_whose_first_line_is_whole_is_a_query(tmp_path: Path, make_requests: Make) -> None:
    requests = make_requests(1, 1, "completion")
    with ModelServer(lambda body, _: says(" how is it?\nDocument: the heart of", "length")) as server:
        _, found = ask(server, tmp_path / "j", requests, replace(SETTINGS, form="completion"))
    assert found == {"d0": "answered"}
    assert server.requests == 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"queries": ["a", " b\\n c "]}', ["a", "b c"]),
        ('<think>{"queries": ["no"]}</think>\n```json\n{"queries": ["a"]}\n```\n', ["a"]),
        ('{"queries": ["a", "b", "c", "d", "e"]}', ["a", "b", "c"]),
        ('{"queries": ["", "b"]}', ["b"]),
    ],
)
def test_answers_that_are_taken(text: str, found: list[str]) -> None:
    assert read_queries(text, 3, "chat") == found


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "no",
            "7",
            '["a"]',
            "null",
            "[" * 100_000,
            '{"queries": []}',
            '{"queries": "a"}',
            '{"queries": ["a", 3]}',
        ),
        *(
            '{"queries": [""]}',
            '{"queries": ["a"',
            'Sure: {"queries": ["a"]}',
            '{"questions": ["a"]}',
            "{'queries': ['a']}",
        ),
        '<think>a</think><think>b</think>{"queries": ["a"]}',
    ],
)
def test_answers_that_are_malformed(text: str) -> None:
    with pytest.raises(MalformedError):
        read_queries(text, 3, "chat")


@pytest.mark.parametrize("body", ["", "<html>proxy</html>", "[]", '{"choices": []}', '{"choices": [{"message": {}}]}',
                                  '{"choices": [{"message": {"content": null}}]}'])  # fmt: skip
def test_bodies_that_are_no_answer(body: str) -> None:
    with pytest.raises(MalformedError):
        read_reply(body, "chat")


@pytest.mark.parametrize(
    "garbage",
    [
        says("as an AI I cannot"),
        says('{"queries": ["half'),
        says(""),
        Answer(body=b"<html><body>proxy</body></html>"),
        Answer(body=bytes(range(256))),
        Answer(body=b""),
        Answer(body=b"not gzip", headers={"Content-Encoding": "gzip"}),
    ],
    ids=["prose", "half a JSON", "nothing", "HTML", "bytes", "no body", "broken gzip"],
)
def test_garbage_is_set_aside_after_three_tries(tmp_path: Path, make_requests: Make, garbage: Answer) -> None:
    requests = make_requests(6)
    with ModelServer(lambda body, _: garbage if about(body) == "doc2" else queries("a", "b")) as server:
        _, found = ask(server, tmp_path / "j", requests)
        asked = dict(server.asked)
        again = ask(server, tmp_path / "j", requests)[1]
    set_aside = garbage.headers == {}  # what cannot be decompressed never was an answer
    assert found["d2"] == ("malformed" if set_aside else "planned")
    assert asked == {f"doc{row}": 3 if row == 2 else 1 for row in range(6)}
    assert server.asked["doc2"] == (3 if set_aside else 6)
    assert again == found
    seeds = [body["seed"] for body in server.bodies if about(body) == "doc2"][:3]
    assert len(set(seeds)) == (3 if set_aside else 1)


def test_a_server_that_always_answers_garbage_ends(tmp_path: Path, make_requests: Make) -> None:
    with ModelServer(lambda *_: says("garbage")) as server:
        _, found = ask(server, tmp_path / "j", make_requests(10))
    assert set(found.values()) == {"malformed"}
    assert server.requests == 30


def test_two_hundred_queries_are_as_many_as_were_asked_for(tmp_path: Path, make_requests: Make) -> None:
    requests = make_requests(1, 3)
    with ModelServer(lambda *_: queries(*(f"query {number}" for number in range(200)))) as server:
        ask(server, tmp_path / "j", requests)
    with Journal(tmp_path / "j") as journal:
        text = journal.answer(requests[0].entry).text
    assert read_queries(text, 3, "chat") == ["query 0", "query 1", "query 2"]


FAULTS = {
    "500": Answer(500), "502": Answer(502), "408": Answer(408), "reset": Answer(reset=True),
    "drip": Answer(drip=0.5, body=b"x" * 99),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_what_passes_is_asked_again(tmp_path: Path, make_requests: Make, fault: Answer) -> None:
    requests = make_requests(6)

    def answer(body: dict[str, Any], before: int) -> Answer:
        return fault if about(body) in ("doc1", "doc4") and before < 2 else queries("a")

    with ModelServer(answer) as server:
        asking, found = ask(server, tmp_path / "j", requests, timeout=1.5 if fault.drip else 5.0)
    assert set(found.values()) == {"answered"}
    with Journal(tmp_path / "j") as journal:  # what drips is given up: it does not come whole, and malformed
        assert journal.outcomes(requests[1].id) == ["failed", "failed", "answered"]
    assert asking.failed == 0
    assert (server.asked["doc1"], server.asked["doc4"], server.requests) == (3, 3, 10)
    lost = fault.reset or fault.drip is not None
    reserved = SETTINGS.most(requests[0]).tokens
    assert spent(tmp_path / "j", requests).tokens == 6 * USED + (4 * reserved if lost else 0)


def test_one_that_never_answers_is_left_for_another_run(tmp_path: Path, make_requests: Make) -> None:
    requests = make_requests(6)
    with ModelServer(lambda body, _: Answer(500) if about(body) == "doc5" else queries("a")) as server:
        asking, found = ask(server, tmp_path / "j", requests)
        assert (asking.failed, found["d5"], server.asked["doc5"]) == (1, "planned", 3)
        server.answer = lambda *_: queries("a")
        assert set(ask(server, tmp_path / "j", requests)[1].values()) == {"answered"}
    assert server.requests == 5 + 3 + 1


def test_a_server_that_is_not_there_ends_it(tmp_path: Path, make_requests: Make) -> None:
    requests = make_requests(50)
    with ModelServer(lambda *_: queries("a")) as server:
        pass
    with pytest.raises(
        UserError, match=r"does not answer: cannot connect .*is generator.url right, and the server up\?"
    ):
        ask(server, tmp_path / "j", requests)
    assert spent(tmp_path / "j", requests) == Spending()  # nothing was read, so nothing is charged


def test_a_server_that_dies_on_the_way_ends_it(tmp_path: Path, make_requests: Make) -> None:
    requests = make_requests(40)
    with ModelServer(lambda *_: queries("a") if server.requests <= 10 else Answer(500)) as server:
        with pytest.raises(UserError, match="does not answer: 500"):
            ask(server, tmp_path / "j", requests)
        assert server.requests < 10 + 40
        server.answer = lambda *_: queries("a")
        ask(server, tmp_path / "j", requests)
    assert set(server.answered.values()) == {1}


def test_too_many_at_once_are_asked_for_more_slowly(tmp_path: Path, make_requests: Make) -> None:
    """A server that takes three at once: its answers decide how many are under way."""
    room = threading.Semaphore(3)

    def answer(body: dict[str, Any], _: int) -> Answer:
        if not room.acquire(blocking=False):
            return Answer(429, headers={"Retry-After": "0"})
        time.sleep(0.02)
        room.release()
        return queries("a")

    with ModelServer(answer) as server:
        asking, found = ask(server, tmp_path / "j", make_requests(60), replace(SETTINGS, concurrency=12))
    assert set(found.values()) == {"answered"}
    assert set(server.answered.values()) == {1}
    refused = server.requests - 60
    assert asking.pace.decreases < refused  # a burst of refusals is one reason to slow down
    assert refused < 60


def test_nothing_is_sent_while_the_server_asks_for_a_pause(tmp_path: Path, make_requests: Make) -> None:
    with ModelServer(
        lambda _, __: Answer(429, headers={"Retry-After": "1"}) if server.requests <= 4 else queries("a")
    ) as server:
        _, found = ask(server, tmp_path / "j", make_requests(12))
    assert set(found.values()) == {"answered"}
    first, *later = sorted(server.times)
    assert [moment for moment in later if 0.3 < moment - first < 0.95] == []
    assert server.requests == 16


def test_a_server_that_stays_busy_ends_it(tmp_path: Path, make_requests: Make) -> None:
    settings = replace(SETTINGS, patience=0.3)
    with ModelServer(lambda *_: Answer(503, b"later")) as server:
        with pytest.raises(
            UserError, match=r"is busy: it has answered nothing for .*\(503 Service Unavailable: later\)"
        ):
            ask(server, tmp_path / "j", make_requests(5), settings)
        server.answer = lambda *_: Answer(429, headers={"Retry-After": "86400"})
        with pytest.raises(UserError, match="asks for a pause of 86400 s"):
            ask(server, tmp_path / "j", make_requests(5), settings)


@pytest.mark.parametrize("status", [401, 403])
def test_access_denied_half_way_keeps_what_was_answered(tmp_path: Path, make_requests: Make, status: int) -> None:
    requests, key = make_requests(30), "sk-secret-0123"

    def answer(body: dict[str, Any], _: int) -> Answer:
        if about(body) == "doc7":
            return Answer(status, f"the key {key} has expired".encode())
        time.sleep(0.05)  # under way when access is denied
        return queries("a")

    with ModelServer(answer) as server:
        with pytest.raises(UserError, match=rf"denies access: {status} .*the key \[key\] has expired; see") as error:
            ask(server, tmp_path / "j", requests, key=key)
        assert server.requests <= 12
        sent = dict(server.answered)
        server.answer = lambda *_: queries("a")
        _, found = ask(server, tmp_path / "j", requests, key=key)
    assert set(found.values()) == {"answered"}
    assert all(server.asked[document] == 1 for document, answers in sent.items() if answers)
    assert server.keys == {f"Bearer {key}"}
    assert key not in str(error.value)
    assert all(key.encode() not in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_a_refused_document_is_set_aside_with_the_servers_words(tmp_path: Path, make_requests: Make) -> None:
    requests = make_requests(6)
    settings = replace(SETTINGS, structured="schema")
    with ModelServer(lambda body, _: Answer(400, b"no policy") if about(body) == "doc3" else queries("a")) as server:
        _, found = ask(server, tmp_path / "j", requests, settings)
        ask(server, tmp_path / "j", requests, settings)
    assert [document for document, state in found.items() if state != "answered"] == ["d3"]
    assert server.asked["doc3"] == 1
    with Journal(tmp_path / "j") as journal:
        assert journal.answer(requests[3].entry).text == "400 Bad Request: no policy"


def test_a_server_that_refuses_everything_is_asked_wrongly(tmp_path: Path, make_requests: Make) -> None:
    requests, settings = make_requests(50), replace(SETTINGS, structured="none")
    with ModelServer(lambda *_: Answer(404, b"no model tiny")) as server:
        with pytest.raises(
            UserError,
            match=r"refuses every request: 404 Not Found: no model tiny; are generator.url and generator.model right",
        ):
            ask(server, tmp_path / "j", requests, settings)
        assert server.requests <= 10
        server.answer = lambda *_: queries("a")  # the model has been loaded
        assert set(ask(server, tmp_path / "j", requests, settings)[1].values()) == {"answered"}


def test_a_redirect_is_not_followed(tmp_path: Path, make_requests: Make) -> None:
    with ModelServer(lambda *_: queries("a")) as other, ModelServer(lambda *_: Answer()) as server:
        server.answer = lambda *_: Answer(307, headers={"Location": f"{other.url}/chat/completions"})
        with pytest.raises(UserError, match="refuses every request: 307"):
            ask(server, tmp_path / "j", make_requests(3), key="secret")
    assert other.requests == 0  # it would have seen the key


@pytest.mark.parametrize("status", [400, 422])
def test_without_json_schema_words_are_enough(tmp_path: Path, make_requests: Make, status: int) -> None:
    with ModelServer(lambda body, _: Answer(status) if "response_format" in body else queries("a")) as server:
        _, found = ask(server, tmp_path / "j", make_requests(20))
    assert set(found.values()) == {"answered"}
    assert 21 <= server.requests <= 24  # those that were under way when the first was refused


def test_a_document_that_is_refused_takes_the_schema_from_no_other(tmp_path: Path, make_requests: Make) -> None:
    """The first one is too long, with a schema or without."""
    asked: list[tuple[str, bool]] = []

    def answer(body: Mapping[str, Any], _: int) -> Answer:
        asked.append((about(body), "response_format" in body))
        return Answer(400, b"too long") if about(body) == "doc0" else queries("a")

    settings = replace(SETTINGS, concurrency=1)
    with ModelServer(answer) as server:
        _, found = ask(server, tmp_path / "j", make_requests(3), settings)
    assert asked == [("doc0", True), ("doc0", False), ("doc1", True), ("doc2", True)]
    assert list(found.values()) == ["refused", "answered", "answered"]


@pytest.mark.parametrize(("name", "room"), [("requests", 7), ("tokens", 2), ("cost", 2)])
def test_the_budget_is_never_exceeded(tmp_path: Path, make_requests: Make, name: str, room: int) -> None:
    """Every third answer fails, and each process is given the same limit: together they keep to it."""
    requests, price = make_requests(60), Price(1.0, 1.0)
    most = replace(SETTINGS, price=price).most(requests[0])
    limit = {"requests": room, "tokens": room * most.tokens, "cost": room * most.cost * (1 + 1e-9)}[name]
    settings = replace(SETTINGS, price=price, budget=Budget(**{name: limit}), tries=9)
    with ModelServer(lambda _, before: Answer(500) if server.requests % 3 == 0 else queries("a")) as server:
        for _ in range(3):
            asking, _ = ask(server, tmp_path / "j", requests, settings)
            assert asking.out_of_budget.startswith(f"generator.budget.{name}=")
            assert getattr(spent(tmp_path / "j", requests), name) <= limit
        answered = sum(server.answered.values())
        if name == "requests":
            assert server.requests == 7
        else:  # what is not used of a reservation is used for more
            assert answered == int(limit * (1 if name == "tokens" else 1e6) - most.tokens) // USED + 1
        settings = replace(settings, budget=Budget())
        assert set(ask(server, tmp_path / "j", requests, settings)[1].values()) == {"answered"}


def test_an_answer_without_usage_is_charged_as_it_was_reserved(tmp_path: Path, make_requests: Make) -> None:
    requests = make_requests(4)
    bare = b'{"choices": [{"message": {"content": "{\\"queries\\": [\\"a\\"]}"}}]}'
    with ModelServer(lambda *_: Answer(body=bare)) as server:
        ask(server, tmp_path / "j", requests)
    assert spent(tmp_path / "j", requests).tokens == sum(SETTINGS.most(request).tokens for request in requests)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that nobody trusts, with its key."""
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    )
    try:
        subprocess.run([*command.split(), "-keyout", file, "-out", f"{file}.crt"], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no openssl to make a certificate with")
    file.write_bytes(file.read_bytes() + Path(f"{file}.crt").read_bytes())
    return file


def test_a_certificate_that_is_not_trusted_ends_it(
    tmp_path: Path, make_requests: Make, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ModelServer(lambda *_: queries("a"), certificate) as server:
        with pytest.raises(
            UserError, match=r"its certificate is not trusted \(self.signed certificate\); set SSL_CERT_FILE"
        ):
            ask(server, tmp_path / "j", make_requests(30))
        assert server.requests == 0
        monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
        assert set(ask(server, tmp_path / "j", make_requests(3))[1].values()) == {"answered"}


def test_a_disk_that_fills_ends_it_and_keeps_what_was_written(
    tmp_path: Path, make_requests: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests, set_up = make_requests(60), Journal._set_up
    full = lambda self, database: (set_up(self, database), database.execute("PRAGMA max_page_count = 45"))  # noqa: E731
    long = " ".join(["heart"] * 400)
    with ModelServer(lambda *_: queries(long)) as server:
        monkeypatch.setattr(Journal, "_set_up", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*/j'"):
            ask(server, tmp_path / "j", requests)
        monkeypatch.setattr(Journal, "_set_up", set_up)
        before = server.requests
        assert set(ask(server, tmp_path / "j", requests)[1].values()) == {"answered"}
    assert 4 < before < 60
    assert server.requests - len(requests) <= SETTINGS.concurrency


def test_ctrl_c_keeps_every_answer_that_came(tmp_path: Path, make_requests: Make) -> None:
    requests = make_requests(60)

    pressed = threading.Event()

    def answer(*_: object) -> Answer:
        time.sleep(0.02)
        if server.requests >= 25 and not pressed.is_set():
            pressed.set()
            os.kill(os.getpid(), signal.SIGINT)
        return queries("a")

    with ModelServer(answer) as server:
        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            ask(server, tmp_path / "j", requests)
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
        assert server.requests < 40
        server.answer = lambda *_: queries("a")
        assert set(ask(server, tmp_path / "j", requests)[1].values()) == {"answered"}
    assert server.requests - 60 <= SETTINGS.concurrency


def test_an_endless_answer_is_cut_off(tmp_path: Path, make_requests: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embfit.generator.client.MOST_BYTES", 10_000)
    with (
        ModelServer(lambda *_: Answer(body=b"x" * 100_000)) as server,
        pytest.raises(UserError, match="the answer is longer than 10,000 bytes"),
    ):
        ask(server, tmp_path / "j", make_requests(1))


def test_a_key_is_in_no_description_of_a_client() -> None:
    assert "secret" not in repr(vars(ApiClient("http://localhost/v1", "secret", 1.0, 1))["_client"])
