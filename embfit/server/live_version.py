"""The version of a bundle that answers requests, and its replacement when the pointer moves.

Encoder, index and documents of a version are one object. A request gets that object when it arrives and uses it to
its end, so no answer mixes two versions. A new version is opened beside the old one, verified and warmed by a query.
Only then do new requests get it. If the new version fails, the old one continues to answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from embfit.bundle import Bundle, BundleVersions, open_bundle
from embfit.errors import UserError
from embfit.model.back_ends.choice import BackEndChoice
from embfit.server.batch_models import TextBatches
from embfit.server.garbage import freeze_again
from embfit.store import Store

log = logging.getLogger(__name__)

RETRY_SECONDS = 60.0  # seconds before a refused version is tried again
WARMING = "how does it start"  # the query that warms a version without probes

Which: TypeAlias = Literal["champion", "challenger", "previous"] | int


@dataclass(eq=False)
class LiveBundle:
    """An open version. Only the event loop changes its counts.

    Args:
        bundle: the open version.
        texts: its encoder, in the form that the batcher runs.
        loaded: when it was opened (Unix time).
        users: the number of requests that use it.
        retired: whether another version has replaced it.
    """

    bundle: Bundle
    texts: TextBatches = field(init=False)
    loaded: float = field(default_factory=time.time)
    users: int = 0
    retired: bool = False

    def __post_init__(self) -> None:
        self.texts = TextBatches(self.bundle.encoder)

    @property
    def label(self) -> str:
        """`NAME@VERSION`."""
        return self.bundle.label

    def acquire(self) -> LiveBundle:
        """Count a request that uses this version."""
        self.users += 1
        return self

    def release(self) -> None:
        """Count the end of a request; after the last one, a retired version releases its folder for pruning."""
        self.users -= 1
        self._close_unused()

    def retire(self) -> None:
        """Mark the version as replaced; requests that use it may finish."""
        self.retired = True
        self._close_unused()

    @property
    def closed(self) -> bool:
        """Whether another version has replaced this one and its last request has ended."""
        return self.retired and not self.users

    def _close_unused(self) -> None:
        if self.closed:
            self.bundle.close()


class Follower:
    """Follows a pointer of a bundle.

    Args:
        versions: the versions of the bundle.
        which: the pointer, or a version's number, which never moves.
        device: the device of the encoders.
        swapped: is called with each version that was opened, and with None for each that was refused.
        backend: the back end that embeds queries; None uses the one that embedded the documents.
        store: keeps the models that the back end has converted.
        main: the follower of the main version, if this one's version is a second one. A second version is closed
            when its pointer is removed; a main version continues to answer.
    """

    def __init__(
        self,
        versions: BundleVersions,
        which: Which,
        device: str,
        swapped: Callable[[LiveBundle | None], None],
        backend: BackEndChoice | None = None,
        store: Store | None = None,
        main: Follower | None = None,
    ) -> None:
        self.versions = versions
        self.which = which
        self.device = device
        self.backend = backend
        self.store = store
        self.main = main
        self._swapped = swapped
        self._opening = ThreadPoolExecutor(1, "embfit-open")  # one, as each thread keeps memory of its own
        self._live: LiveBundle | None = None
        self._retired: list[LiveBundle] = []  # versions whose memory is still to be reclaimed
        self._refused: tuple[int, float] | None = None

    @property
    def live(self) -> LiveBundle | None:
        """The version that answers now; None before the first."""
        return self._live

    def open(self) -> None:
        """Open the version that the pointer names; called before the event loop runs.

        Raises:
            UserError: the version does not exist or is not usable.
        """
        self._take(self._open(self.which))

    async def follow(self, seconds: float) -> None:
        """Read the pointer at regular intervals until cancelled; an error does not end the loop."""
        while True:
            try:
                await self.look()
            except Exception:
                log.exception("%s cannot be followed; tried again", self.versions.name)
            await asyncio.sleep(seconds)

    async def look(self) -> None:
        """If the pointer names another version, open it and let it replace the live one."""
        self._reclaim()
        number = self._named()
        if number is None:
            if self.main is not None and self._live is not None and not self.main.is_to_open(self._live):
                log.info("%s: the pointer %s was removed", self.versions.name, self.which)
                self._retire(self._live)
                self._live = None
            return
        if self._live is not None and number == self._live.bundle.manifest.version:
            return
        if self._refused is not None and self._refused[0] == number and time.monotonic() < self._refused[1]:
            return
        try:
            bundle = await asyncio.get_running_loop().run_in_executor(self._opening, self._open, number)
        except Exception as error:
            self._refused = (number, time.monotonic() + RETRY_SECONDS)
            keeps = f"; {self._live.label} keeps serving" if self._live else ""
            log.error(
                "%s@%d is refused: %s%s",
                self.versions.name,
                number,
                error,
                keeps,
                exc_info=None if isinstance(error, UserError) else error,
            )
            self._swapped(None)
            return
        self._refused = None
        self._take(bundle)

    def is_to_open(self, other: LiveBundle) -> bool:
        """Return whether this follower's pointer names another follower's version, which this one has not opened yet.

        A challenger that was promoted stays open as the challenger until the server has opened it as the champion.
        """
        number = other.bundle.manifest.version
        return self._named() == number and (self._live is None or self._live.bundle.manifest.version != number)

    def close(self) -> None:
        """Close the version."""
        self._opening.shutdown(wait=False, cancel_futures=True)
        if self._live is not None:
            self._live.retire()

    def _named(self) -> int | None:
        return self.which if isinstance(self.which, int) else self.versions.pointer(self.which)

    def _open(self, which: Which) -> Bundle:
        return _warm(open_bundle(self.versions.folder, which, self.device, backend=self.backend, store=self.store))

    def _take(self, bundle: Bundle) -> None:
        old, self._live = self._live, LiveBundle(bundle)
        if old is not None:
            log.info("%s replaces %s", self._live.label, old.label)
            self._retire(old)
        self._swapped(self._live)

    def _retire(self, old: LiveBundle) -> None:
        old.retire()
        self._retired.append(old)

    def _reclaim(self) -> None:
        """Reclaim the memory of replaced versions whose last request has ended."""
        remaining = [one for one in self._retired if not one.closed]
        if len(remaining) < len(self._retired):
            self._retired = remaining
            freeze_again()


def _warm(bundle: Bundle) -> Bundle:
    """Search a version once, so that its files are in memory and a faulty version is found before it answers.

    Raises:
        UserError: the search fails.
    """
    try:
        question = next(iter(bundle.manifest.model.probes), WARMING)
        bundle.searcher.hits(bundle.searcher.search([question], 10, "hybrid" if bundle.searcher.words else "dense"))
    except BaseException:
        bundle.close()
        raise
    return bundle
