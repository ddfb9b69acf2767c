"""Requests to a server: several at once, and repeated when the server is busy."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import count, islice
from urllib.parse import urlsplit

import numpy as np

from embfit.errors import UserError

log = logging.getLogger(__name__)

PAUSES = (1.0, 5.0)  # seconds before the second and the third try, if the server does not ask for a pause itself
LONGEST_PAUSE = 120.0  # seconds; a longer pause counts as a failure
BUSY = (408, 425, 429, 500, 502, 503, 504)  # HTTP statuses after which another try may succeed


class BusyError(UserError):
    """A server does not answer now but may answer if it is asked again.

    Args:
        message: the message for the user.
        pause: the seconds that the server asks to wait before the next try; None if it does not say.
    """

    def __init__(self, message: str, pause: float | None = None) -> None:
        super().__init__(message)
        self.pause = pause


@dataclass(frozen=True)
class Request:
    """Texts that are sent together.

    Args:
        first: the place of the first text among all texts.
        texts: the texts to send.
        tries: how many tries have failed so far.
    """

    first: int
    texts: list[str]
    tries: int = 0


def answers(
    embed: Callable[[list[str]], np.ndarray], texts: Iterable[str], batch: int, in_flight: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the place of each request's first text and the request's vectors, in the order in which answers arrive.

    If the server is busy, nothing is sent until it may be asked again. After a lasting failure no further request is
    sent. The requests under way are still waited for, so that no answer is lost, and then the failure is raised.

    Args:
        embed: sends texts to the server and returns their vectors ([n, D] float32).
        texts: the texts to embed; they are read as they are sent.
        batch: texts in one request.
        in_flight: requests that are under way at once.

    Raises:
        UserError: what `embed` raises. A `BusyError` is raised only after three failed tries, or if it asks for too
            long a pause.
    """
    fresh, again = _requests(texts, batch), list[Request]()
    waiting: dict[Future[np.ndarray], Request] = {}
    failure: BaseException | None = None
    quiet_until = 0.0
    with ThreadPoolExecutor(in_flight) as threads:
        while True:
            while failure is None and len(waiting) < in_flight:
                if (request := again.pop() if again else next(fresh, None)) is None:
                    break
                time.sleep(max(0.0, quiet_until - time.monotonic()))
                waiting[threads.submit(embed, request.texts)] = request
            if not waiting:
                break
            for answered in wait(waiting, return_when=FIRST_COMPLETED).done:
                request, error = waiting.pop(answered), answered.exception()
                if error is None:
                    yield request.first, answered.result()
                elif (pause := _pause(error, request.tries)) is None:
                    failure = failure or error
                else:
                    log.info("%s; trying again in %.0f s", error, pause)
                    again.append(replace(request, tries=request.tries + 1))
                    quiet_until = max(quiet_until, time.monotonic() + pause)
    if failure is not None:
        raise failure


def _requests(texts: Iterable[str], batch: int) -> Iterator[Request]:
    remaining = iter(texts)
    for first in count(step=batch):
        if not (chosen := list(islice(remaining, batch))):
            return
        yield Request(first, chosen)


def _pause(error: BaseException, tries: int) -> float | None:
    """Return the seconds to wait before the next try, or None if another try would not help."""
    if not isinstance(error, BusyError) or tries == len(PAUSES):
        return None
    pause = PAUSES[tries] if error.pause is None else error.pause
    return pause if pause <= LONGEST_PAUSE else None


def is_address(url: str) -> bool:
    """Return whether a text is the address of a server."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and " " not in url
    except ValueError:  # an invalid port, or an unclosed bracket
        return False


def pause_asked(retry_after: str) -> float | None:
    """Return the pause that a server asks for, in seconds; None if it asks for none.

    Args:
        retry_after: the header `Retry-After`: seconds, or a date.
    """
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None
