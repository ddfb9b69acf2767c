"""The version that answers, and the one that takes its place when the pointer moves.

Encoder, index and documents of a version are one object. A request takes that object when it arrives and keeps it to
its end, so no answer mixes two versions. A new version is opened beside the old one, verified and asked a question.
Only then do new requests get it. A version that fails is refused, and the old one stays.
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
from embfit.store import Store

log = logging.getLogger(__name__)

RETRY_SECONDS = 60.0  # until a version that was refused is tried again
WARMING = "how does it start"  # asked where a version has no probes

Which: TypeAlias = Literal["champion", "challenger", "previous"] | int


@dataclass(eq=False)
class LiveBundle:
    """A version that answers. Its counts are changed on the event loop alone.

    Args:
        bundle: the open version.
        texts: its encoder, as the batcher calls it.
        loaded: when it was opened (Unix time).
        users: requests that hold it.
        retired: whether another one has taken its place.
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
        """Hold it for a request."""
        self.users += 1
        return self

    def release(self) -> None:
        """End a request; the last one of a retired version gives up the claim to its folder."""
        self.users -= 1
        self._close_unused()

    def retire(self) -> None:
        """Leave it to the requests that hold it."""
        self.retired = True
        self._close_unused()

    def _close_unused(self) -> None:
        if self.retired and not self.users:
            self.bundle.close()


class Follower:
    """Follows a pointer of a bundle.

    Args:
        versions: of the bundle.
        which: the pointer, or a number, which never moves.
        device: what encoders are put on.
        swapped: is told of each version that was opened, and with None of each that was refused.
        backend: what computes queries; None is what computed the documents.
        store: keeps what the back end is converted to.
        main: the follower of the version that answers, where this one's version is beside it: then nothing answers here
            once the pointer names none. Without `main` the last version keeps answering.
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
        self._opening = ThreadPoolExecutor(1, "embfit-open")  # one: each thread that opens keeps memory of its own
        self._live: LiveBundle | None = None
        self._refused: tuple[int, float] | None = None

    @property
    def live(self) -> LiveBundle | None:
        """The version that answers now; None before the first."""
        return self._live

    def open(self) -> None:
        """Open what the pointer names; called before the event loop runs.

        Raises:
            UserError: there is no such version, or it cannot be used.
        """
        self._take(self._open(self.which))

    async def follow(self, seconds: float) -> None:
        """Look at the pointer every so many seconds, until it is cancelled; nothing that goes wrong ends it."""
        while True:
            try:
                await self.look()
            except Exception:
                log.exception("%s cannot be followed; tried again", self.versions.name)
            await asyncio.sleep(seconds)

    async def look(self) -> None:
        """Open the version that the pointer names, if that is another one, and let it answer."""
        number = self._named()
        if number is None:
            if self.main is not None and self._live is not None and not self.main.is_to_open(self._live):
                log.info("%s: no version is %s any more", self.versions.name, self.which)
                self._live.retire()
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
        """Say whether the pointer names the version of another follower, and this one does not answer by it yet.

        A challenger that was promoted answers those who ask for it until the server has opened it as its champion.
        """
        number = other.bundle.manifest.version
        return self._named() == number and (self._live is None or self._live.bundle.manifest.version != number)

    def close(self) -> None:
        """Give up the version."""
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
            log.info("%s takes the place of %s", self._live.label, old.label)
            old.retire()
        self._swapped(self._live)


def _warm(bundle: Bundle) -> Bundle:
    """Ask a version a question, so that its files are in memory and what cannot be searched is known.

    Raises:
        UserError: it cannot be searched.
    """
    try:
        question = next(iter(bundle.manifest.model.probes), WARMING)
        bundle.searcher.hits(bundle.searcher.search([question], 10, "hybrid" if bundle.searcher.words else "dense"))
    except BaseException:
        bundle.close()
        raise
    return bundle
