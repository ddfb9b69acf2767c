"""The service behind the routes: it embeds, scores and searches with the version that a call uses."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from embfit.bundle import BundleVersions, Hit
from embfit.bundle.documents import matching_rows
from embfit.bundle.searching import Mode
from embfit.errors import UnavailableError, UserError
from embfit.model import CrossEncoder
from embfit.model.encoder import Kind
from embfit.model.precision import choose_device, default_token_budget
from embfit.server.batch_models import PairBatches, split
from embfit.server.batching import Batcher, BatchFacts, BatchModel, Job, QueueFullError, StoppedError, TextError
from embfit.server.errors import Refusal, overloaded, too_large
from embfit.server.live_version import Follower, LiveBundle
from embfit.server.metrics import Metrics
from embfit.server.request import Call
from embfit.server.settings import ServerSettings
from embfit.server.shadow import ShadowComparison
from embfit.server.tokenizing import TokenizingThread
from embfit.store import Store
from embfit.tokens import Tokens
from embfit.vectors import Vectors

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Embedded:
    """The vectors of a request's texts.

    Args:
        vectors: the vectors in the order of the texts.
        tokens: the number of tokens of the texts with their prompts.
    """

    vectors: Vectors[np.ndarray]
    tokens: Tokens


class Service:
    """Embeds, scores and searches for the routes.

    It follows the pointers of a bundle, so that a new version replaces the one that answers. It owns the batcher, whose
    single thread runs all models, and `threads`, which search. It belongs to one event loop.

    Args:
        settings: the bundle to serve, and the limits.
        versions: the versions of the bundle.
        device: the device of the models.
        store: keeps converted models; None converts each version again.

    Raises:
        UserError: the bundle, or the reranker, cannot be opened.
        ConfigError: the environment variable of the API key is not set.
    """

    def __init__(
        self, settings: ServerSettings, versions: BundleVersions, device: str = "auto", store: Store | None = None
    ) -> None:
        self.settings = settings
        self.versions = versions
        self.api_key = settings.api_key()
        self.metrics = Metrics()
        self.stopping = False
        self.ranker = (
            None if settings.reranker is None else PairBatches(CrossEncoder.load(settings.reranker, device=device))
        )
        self._main = Follower(versions, settings.serve, device, self.metrics.observe_swap, settings.backend, store)
        self._main.open()
        self._beside, self._shadow = (
            None
            if which is None
            else Follower(versions, which, device, lambda live: None, settings.backend, store, self._main)
            for which in (settings.beside, settings.shadow)
        )
        self.batcher = Batcher(
            settings.token_budget or default_token_budget(choose_device(device)),
            settings.queue,
            self._observe_batch,
        )
        self.threads = ThreadPoolExecutor(settings.search_threads, "embfit-search")
        self._tokenizing = TokenizingThread()
        self._comparison = ShadowComparison(
            settings.shadow_share, self.batcher, self._tokenizing, self.threads, self.metrics
        )
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def live(self) -> LiveBundle:
        """The version that answers new requests."""
        assert self._main.live is not None, "it was opened when the service was made"
        return self._main.live

    @property
    def shadow(self) -> LiveBundle | None:
        """The version that gets a share of the searches for comparison; None where there is none."""
        return None if self._shadow is None else self._shadow.live

    @property
    def beside(self) -> LiveBundle | None:
        """The second version, which answers requests that name it; None where there is none."""
        return None if self._beside is None else self._beside.live

    def answering(self, version: str | None) -> LiveBundle:
        """Return the version that answers a request.

        Args:
            version: the version that the request names, as `NAME@VERSION` or a number; None accepts any.

        Raises:
            Refusal: that version is not open here.
        """
        there = [self.live, *([self.beside] if self.beside is not None else [])]
        if version is None:
            return self.live
        for live in there:
            if version in (live.label, str(live.bundle.manifest.version)):
                return live
        labels = " and ".join(dict.fromkeys(live.label for live in there))
        raise Refusal(
            412,
            f"x-embfit-if-version: {version[:100]!r} is asked for, and {labels} answers; leave the header out, or ask "
            "for that one",
        )

    def start(self) -> None:
        """Start to follow the pointers; called on the event loop."""
        for follower in self._followers():
            self._run_beside(follower.follow(self.settings.follow_seconds))

    async def look(self) -> None:
        """Read the pointers now."""
        for follower in self._followers():
            await follower.look()

    def close(self) -> None:
        """Finish the accepted requests and end the threads."""
        self.stopping = True
        for task in self._tasks:
            task.cancel()
        if not self.batcher.close(self.settings.stop_seconds):
            log.warning("the model was still computing after server.stop_seconds=%g", self.settings.stop_seconds)
        self._tokenizing.close()
        self.threads.shutdown(wait=False, cancel_futures=True)
        for follower in self._followers():
            follower.close()

    def _followers(self) -> list[Follower]:
        return [one for one in (self._main, self._beside, self._shadow) if one is not None]

    def check_texts(self, texts: Sequence[str], param: str) -> None:
        """Check texts against the limits.

        Raises:
            Refusal: there are too many texts, or one is too long.
        """
        if len(texts) > self.settings.max_texts:
            raise too_large(
                f"texts of {param}", len(texts), self.settings.max_texts, "send them in several requests", param
            )
        for place, text in enumerate(texts):
            if len(text) > self.settings.max_characters:
                raise too_large(
                    f"characters of {param}[{place}]", len(text), self.settings.max_characters, "cut the text", param
                )

    async def embed(self, call: Call, texts: Sequence[str], kind: Kind, truncate: bool = True) -> Embedded:
        """Embed a call's texts as queries or documents, with the encoder of the call's version.

        Raises:
            Refusal: the queue is full, a text cannot be embedded, or a text exceeds the model's limit and must not be
                cut.
        """
        tokens = await self.tokenize(call, texts, kind)
        if cut := np.flatnonzero(tokens.truncated).tolist():
            if not truncate:
                limit = call.live.bundle.encoder.max_length
                raise Refusal(
                    400,
                    f"{len(cut)} texts have more than the {limit} tokens that {call.live.label} reads (the first: "
                    f"{cut[0]}); cut them, or leave out truncate=false",
                    code="text_too_long",
                    param="input",
                    reason="too_long",
                )
            call.truncated += len(cut)
            self.metrics.truncated.inc(len(cut))
        return Embedded(await self._vectors(call, tokens), tokens)

    async def vectors(self, call: Call, texts: Sequence[str], kind: Kind) -> Vectors[np.ndarray]:
        """Embed texts that a call's version has read before; cut ones are not counted again.

        Raises:
            Refusal: as `embed`.
        """
        return await self._vectors(call, await self.tokenize(call, texts, kind))

    async def _vectors(self, call: Call, tokens: Tokens) -> Vectors[np.ndarray]:
        parts = await self._compute(call, call.live.texts, split(tokens), tokens.lengths.tolist())
        return call.live.texts.joined(tokens, parts)

    async def tokenize(self, call: Call, texts: Sequence[str], kind: Kind) -> Tokens:
        """Tokenise a call's texts with their prompts, and count the tokens."""
        started = time.perf_counter()
        tokens = await self._tokenizing.tokens(call.live.texts.tokenizer(kind), texts)
        self.metrics.tokenization_seconds.observe(time.perf_counter() - started)
        self._count(call, int(tokens.starts[-1]))
        return tokens

    async def score(self, call: Call, query: str, documents: Sequence[str]) -> np.ndarray:
        """Score documents for a query ([D] float32): by the reranker if there is one, else by the version's vectors.

        Raises:
            Refusal: as `embed`.
        """
        if self.ranker is None:
            asked = await self.embed(call, [query], "query")
            read = await self.embed(call, documents, "document")
            scores: np.ndarray = asked.vectors.scores(read.vectors)[0]
            return scores
        tokenizer = self.ranker.ranker.tokenize
        first, others = [await self._tokenizing.tokens(tokenizer, texts) for texts in ([query], documents)]
        pairs, lengths = self.ranker.pairs(first, others)
        self._count(call, int(lengths.sum()))
        found = await self._compute(call, self.ranker, pairs, lengths.tolist())
        return np.array(found, np.float32)

    async def search(
        self, call: Call, queries: Sequence[str], k: int, mode: Mode, where: Mapping[str, Any] | None
    ) -> list[list[Hit]]:
        """Return the best documents of each query.

        Raises:
            Refusal: as `embed`; or a column is unknown, the version has no BM25 index, or the database of the vectors
                does not answer.
        """
        vectors = None if mode == "words" else (await self.embed(call, queries, "query")).vectors
        searcher = call.live.bundle.searcher

        def find() -> list[list[Hit]]:
            started = time.perf_counter()
            allowed = matching_rows(searcher.documents, where) if where else None
            hits = searcher.hits(searcher.search(queries, k, mode, allowed, vectors))
            self.metrics.search_seconds.observe(time.perf_counter() - started)
            return hits

        try:
            found = await asyncio.get_running_loop().run_in_executor(self.threads, find)
        except UnavailableError as error:
            raise Refusal(503, str(error), code="index_unavailable", reason="other") from error
        except UserError as error:
            raise Refusal(400, str(error)) from error
        if mode == "dense" and not where:
            self._ask_shadow(queries, [[hit.id for hit in hits] for hits in found])
        return found

    def _count(self, call: Call, tokens: int) -> None:
        call.tokens += tokens
        self.metrics.prompt_tokens.inc(tokens)
        self.metrics.input_tokens.observe(tokens)

    async def _compute(
        self, call: Call, model: BatchModel, contents: Sequence[Any], lengths: Sequence[int]
    ) -> list[Any]:
        """Run texts of a call through the batcher; if its client disconnects, drop them."""
        try:
            job = self.batcher.submit(model, contents, lengths)
        except QueueFullError as full:
            raise overloaded(full.waiting, self.settings.queue, full.seconds) from full
        except StoppedError as stopped:
            raise Refusal(503, f"{stopped}; try again", reason="other") from stopped
        try:
            return await self._finished(call, job)
        except TextError as error:
            log.error("request %s: %s", call.id, error, exc_info=error.cause)
            raise Refusal(
                500,
                f"text {error.place} of the request cannot be computed ({error.cause}); the others can: send them "
                "without it",
                code="text_failed",
                reason="inference",
                headers={"x-should-retry": "false"},
            ) from error
        except StoppedError as stopped:
            raise Refusal(503, f"{stopped}; try again", reason="other") from stopped
        finally:
            job.future.cancel()
            call.queue_seconds += max(job.queue_seconds, 0.0)
            call.inference_seconds += job.inference_seconds
            if job.queue_seconds >= 0:
                self.metrics.queue_seconds.observe(job.queue_seconds)

    async def _finished(self, call: Call, job: Job) -> list[Any]:
        """Return the results of a job.

        Raises:
            Refusal: the client has disconnected, or the job took too long.
        """
        future = asyncio.wrap_future(job.future)
        either: set[asyncio.Future[Any]] = {future, call.gone}
        done, _ = await asyncio.wait(either, timeout=self.settings.timeout, return_when=asyncio.FIRST_COMPLETED)
        if future in done:
            return future.result()
        future.cancel()
        if call.gone in done:
            raise Refusal(499, "the client has gone", reason="cancelled")
        raise Refusal(
            503,
            f"the model did not finish the request within {self.settings.timeout:g} s (server.timeout); send fewer "
            "texts at a time",
            code="timeout",
            reason="deadline",
        )

    def _ask_shadow(self, queries: Sequence[str], found: Sequence[Sequence[str]]) -> None:
        """Send a share of the queries to the shadow, in the background."""
        for query, ids in zip(queries, found, strict=True):
            if self.shadow is not None and self._comparison.asks(query):
                self._run_beside(self._comparison.compare(self.shadow, query, ids))

    def _observe_batch(self, facts: BatchFacts) -> None:
        self.metrics.observe_batch(facts)
        self.metrics.queue_size.set(self.batcher.waiting)

    def _run_beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in the background, and keep a reference to its task, so that it is not garbage-collected."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
