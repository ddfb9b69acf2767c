"""Asks a server for queries: several requests at once, each on record before it is sent and when it is answered.

What becomes of a request:

- 200 with queries in the form asked for: it is answered. Without, it is asked again, and after a few times set aside.
- 408, 5xx, a broken connection, no answer in time: it is asked again after a pause that doubles, by all its tries.
- 429 and 503: likewise, but all requests pause, fewer are under way from then on, and no try is used up.
- 401 and 403: nothing more is sent. What is under way is waited for, and recorded.
- any other status: it is set aside with the server's words. Where nothing was ever answered, a few stop the run.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from embfit.errors import UserError
from embfit.generator.answers import MalformedError, read_reply
from embfit.generator.asking_settings import AskingSettings, Structured
from embfit.generator.budget import Spending
from embfit.generator.client import ApiClient, LostError, ServerAnswer, UnreachableError
from embfit.generator.concurrency import Pace, pause_before
from embfit.generator.interruption import until_interrupted
from embfit.generator.journal import Journal
from embfit.generator.plan import QueryRequest
from embfit.progress import Advance, progress

log = logging.getLogger(__name__)

DENIED = (401, 403)
OVERLOADED = (429, 503)
WORTH_ANOTHER_TRY = (408, 425, *range(500, 600))
NOT_UNDERSTOOD = (400, 404, 415, 422, 501)  # what servers answer to a response_format that they do not know
MALFORMED_TRIES = 3
ALL_REFUSED = 5  # requests, after which a server that answers none is thought to be asked wrongly
ELSEWHERE = 0.2  # seconds between looks at what other processes have sent


@dataclass
class _Sending:
    """A request on its way through the tries."""

    request: QueryRequest
    failures: int = 0
    malformed: int = 0


class Asking:
    """One process's asking for the queries of a data set.

    Args:
        client: sends requests.
        journal: records them.
        settings: how the server is asked.
        scope: identifies the data set in the journal.
        seed: draws the pauses.
    """

    def __init__(
        self, client: ApiClient, journal: Journal, settings: AskingSettings, scope: str, seed: int = 0
    ) -> None:
        self.client, self.journal, self.settings, self.scope = client, journal, settings, scope
        self.chance = random.Random(seed)
        self.group = settings.group
        self.pace = Pace(settings.concurrency, self.chance, time.monotonic)
        self.structured: Structured = settings.structured
        self.out_of_budget: str | None = None
        self.failed = 0  # requests that used up their tries
        self._failed_in_a_row = 0
        # whether there is no doubt that the server takes what `structured` asks for
        self._understood = settings.structured != "auto" or settings.form == "completion"
        self._queue: deque[_Sending] = deque()
        self._elsewhere: list[_Sending] = []
        self._stop: BaseException | None = None
        self._advance: Advance
        self._last_answer = time.monotonic()
        self._answers = 0
        self._refused: list[str] = []

    async def ask(self, requests: Sequence[QueryRequest], done: int = 0) -> None:
        """Ask for the queries of all requests, until each is answered or set aside, or the budget is used up.

        Args:
            requests: those without an answer.
            done: the number of requests that have one, for the progress.

        Raises:
            UserError: the server denies access, cannot be reached, or answers nothing.
            OSError: the journal cannot be written.
        """
        self._answers = done
        self._queue.extend(map(_Sending, requests))
        workers = min(self.settings.concurrency, max(1, len(requests)))
        with progress("asking", len(requests) + done, "requests", self._note, done) as self._advance:
            while self._queue and self._stop is None and self.out_of_budget is None:
                self._last_answer = time.monotonic()
                await asyncio.gather(*(self._work() for _ in range(workers)))
                if self._elsewhere and self._stop is None and self.out_of_budget is None:
                    await asyncio.sleep(ELSEWHERE)
                    self.journal.release_lost()
                    self._queue.extend(self._elsewhere)
                    self._elsewhere.clear()
        if self._stop is not None:
            raise self._stop
        if self.out_of_budget is not None:
            log.warning("the budget is used up (%s); raise it, and the same command continues", self.out_of_budget)
        elif self.failed:
            log.warning("%d requests got no answer; the same command asks for them again", self.failed)

    async def _work(self) -> None:
        """Send one request after the other, until there is none or something stands in the way of all."""
        while self._queue and self._stop is None and self.out_of_budget is None:
            sending = self._queue.popleft()
            try:
                pause = await self._send(sending)
            except (UserError, OSError) as error:
                self._stop = self._stop or error
                return
            if pause:
                await asyncio.sleep(pause)
                self._queue.appendleft(sending)

    async def _send(self, sending: _Sending) -> float | None:
        """Send a request, if it is this process's to send; return the seconds after which to do so again."""
        request = sending.request
        async with self.pace.slot():
            if self._stop is not None:
                return None
            claim = self.journal.claim(request.id, self.settings.most(request), self.settings.budget, self.scope)
            if claim.attempt is not None:
                return await self._post(sending, claim.attempt)
            if claim.state == "sent":
                self._elsewhere.append(sending)
            elif claim.state != "planned":
                self._advance()  # another process has its answer
            elif self.pace.active == 1:
                self.out_of_budget = (
                    f"{self.group}.{claim.refusal}"  # nothing is under way whose reservation may yet be returned
                )
            else:
                self._queue.append(sending)
        if claim.state == "planned" and self.out_of_budget is None:
            await self.pace.changed()
        return None

    async def _post(self, sending: _Sending, attempt: int) -> float | None:
        sent, structured = time.monotonic(), self.structured
        again = self.journal.outcomes(sending.request.id).count("malformed")  # in earlier runs, too
        try:
            answer = await self.client.post(self.settings.body(sending.request, structured, again))
        except LostError as lost:
            spent = None if lost.sent else Spending()  # what was never read costs nothing
            self.journal.record(attempt, self.scope, "failed" if lost.sent else "unsent", "planned", str(lost), spent)
            return self._after_failure(sending, str(lost))
        except UnreachableError as error:
            self.journal.record(attempt, self.scope, "unsent", "planned", str(error), Spending())
            raise
        if answer.status == 200:
            return self._read(sending, attempt, structured, answer)
        nothing = Spending(1)
        if answer.status in DENIED:
            self.journal.record(attempt, self.scope, "refused", "planned", answer.refusal, nothing)
            raise UserError(f"{self.client.address} denies access: {answer.refusal}; see {self.group}.key_variable")
        if answer.status in OVERLOADED:
            self.journal.record(attempt, self.scope, "busy", "planned", answer.refusal, nothing)
            self._after_overload(sending, sent, answer)
            return None
        if answer.status in NOT_UNDERSTOOD and structured == "auto" and not self._understood:
            self.journal.record(attempt, self.scope, "refused", "planned", answer.refusal, nothing)
            if self.structured == "auto":
                log.info(
                    "the server does not accept a JSON schema (%s); only the template asks for JSON", answer.refusal
                )
                self.structured = "none"
            self._queue.appendleft(sending)
            return None
        if answer.status in WORTH_ANOTHER_TRY:
            self.journal.record(attempt, self.scope, "failed", "planned", answer.refusal, nothing)
            return self._after_failure(sending, answer.refusal)
        if structured == "none" and not self._understood:
            self.structured = "auto"  # the schema was not what the server refused
        self._set_aside(sending, attempt, answer)
        return None

    def _read(self, sending: _Sending, attempt: int, structured: Structured, answer: ServerAnswer) -> float | None:
        """Record what a server has answered; without queries it is asked again at once, or set aside."""
        request, spent = sending.request, None
        if structured == "auto":  # what the server has refused before, it has refused for another reason
            self.structured, self._understood = "auto", True
        self.pace.answered()
        self._failed_in_a_row, self._last_answer = 0, time.monotonic()
        try:
            reply = read_reply(answer.text, self.settings.form)
            spent = self.settings.cost(reply)
            if self.settings.form == "completion" and not reply.has_whole_line:  # half a JSON says so by itself
                raise MalformedError(f"it is cut off at {self.group}.max_tokens={self.settings.max_tokens}")
            self.settings.expected.read(reply.text, request.entry.count, self.settings.form)
        except MalformedError as error:
            sending.malformed += 1
            last = sending.malformed == MALFORMED_TRIES
            state: Literal["malformed", "planned"] = "malformed" if last else "planned"
            self.journal.record(attempt, self.scope, "malformed", state, answer.text, spent)
            log.debug("an answer about %s is malformed: %s", request.document.id, error)
            if last:
                self._advance()
            else:
                self._queue.append(sending)
            return None
        self.journal.record(attempt, self.scope, "answered", "answered", reply.text, spent)
        self._answers += 1
        self._advance()
        return None

    def _after_failure(self, sending: _Sending, message: str) -> float | None:
        """Return how long to wait before another try; after the last one the request is left for another run."""
        sending.failures += 1
        if sending.failures < self.settings.tries:
            return pause_before(sending.failures, self.chance)
        self.failed += 1
        self._failed_in_a_row += 1
        log.warning("no answer about %s in %d tries: %s", sending.request.document.id, sending.failures, message)
        if not self._answers or self._failed_in_a_row >= self.settings.concurrency:
            raise UserError(
                f"{self.client.address} does not answer: {message}; is {self.group}.url right, and the server up?"
            )
        return None

    def _after_overload(self, sending: _Sending, sent: float, answer: ServerAnswer) -> None:
        """Let all requests pause; give up when the server has answered nothing for too long."""
        waited = time.monotonic() - self._last_answer
        if waited > self.settings.patience or (answer.pause or 0.0) > self.settings.patience:
            asked = f" and asks for a pause of {answer.pause:.0f} s" if answer.pause else ""
            raise UserError(
                f"{self.client.address} is busy: it has answered nothing for {waited:.0f} s{asked} "
                f"({answer.refusal}); run the same command later, or raise {self.group}.patience"
            )
        self.pace.busy(sent, answer.pause)
        self._queue.appendleft(sending)

    def _set_aside(self, sending: _Sending, attempt: int, answer: ServerAnswer) -> None:
        """Record a refusal; where the server refuses everything, it is asked wrongly."""
        self.journal.record(attempt, self.scope, "refused", "refused", answer.refusal, Spending(1))
        if not self._answers:
            self._refused.append(sending.request.id)
            if len(self._refused) >= ALL_REFUSED or (not self._queue and self.pace.active == 1):
                self.journal.reopen(self._refused)  # the remedy is another setting, not another document
                raise UserError(
                    f"{self.client.address} refuses every request: {answer.refusal}; are {self.group}.url and "
                    f"{self.group}.model right, and does the server take {self.settings.form} requests?"
                )
        self._advance()

    def _note(self) -> str:
        spent = self.journal.spent(self.scope)
        cost = f", {spent.cost:.2f} spent" if spent.cost else ""
        return f"{spent.tokens:,} tokens{cost}, {self.pace.active} under way"


def ask_all(
    address: str,
    key: str | None,
    timeout: float,
    journal: Journal,
    settings: AskingSettings,
    scope: str,
    requests: Sequence[QueryRequest],
    done: int = 0,
    seed: int = 0,
) -> Asking:
    """Ask for the queries of all requests; return what was counted.

    Args:
        address: where requests go.
        key: what the server wants to see.
        timeout: seconds that a request may take in all.
        journal: records them.
        settings: how the server is asked.
        scope: identifies the data set in the journal.
        requests: those without an answer.
        done: the number of requests that have one.
        seed: draws the pauses.

    Raises:
        UserError: the server denies access, cannot be reached, or answers nothing.
        OSError: the journal cannot be written.
        KeyboardInterrupt: the user, or a scheduler, has asked for the end.
    """

    async def run() -> Asking:
        async with ApiClient(address, key, timeout, settings.concurrency, settings.group) as client:
            asking = Asking(client, journal, settings, scope, seed)
            await asking.ask(requests, done)
            return asking

    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it has a line of its own for each request
    try:
        return asyncio.run(until_interrupted(run()))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
