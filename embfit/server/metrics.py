"""The server's metrics for Prometheus. Names and meanings are close to those of TEI and vLLM.

If several processes answer at one address, each writes its metrics to files in a shared folder. The process that is
asked adds them up (prometheus_client's multiprocess mode, which the environment variable `SHARED` switches on).
"""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from embfit.server.batching import BatchFacts
from embfit.server.live_version import LiveBundle

SECONDS = (0.001, 0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

SHARED = "PROMETHEUS_MULTIPROC_DIR"  # the folder; prometheus_client reads the variable when it is imported


def forget_process(process: int, folder: str) -> None:
    """Remove a process that has ended from the gauges; its counters stay."""
    mark_process_dead(process, folder)  # type: ignore[no-untyped-call]  # prometheus_client does not type it


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._shared = os.environ.get(SHARED)
        self._answers: tuple[str, ...] | None = None  # labels of the version that answers
        self.requests = self._counter("requests", "Requests, by route and status", ("route", "code"))
        self.failures = self._counter("request_failures", "Requests that failed, by reason", ("reason",))
        self.request_seconds = self._seconds("request", "Requests", ("route",))
        self.tokenization_seconds = self._seconds("tokenization", "Tokenising the texts of a request")
        self.queue_seconds = self._seconds("queue", "From a request's arrival in the queue to its first batch")
        self.inference_seconds = self._seconds("inference", "A batch in the model")
        self.search_seconds = self._seconds("search", "Searching the index for the queries of a request")
        self.queue_size = Gauge(
            "embfit_queue_size", "Texts that wait for the model", registry=self.registry, multiprocess_mode="livesum"
        )
        self.batch_texts = self._histogram("batch_texts", "Texts of a batch", COUNTS)
        self.batch_tokens = self._histogram("batch_tokens", "Tokens of a batch, padding included", COUNTS)
        self.batch_padding = self._histogram("batch_padding_ratio", "Share of padding in a batch", SHARES)
        self.input_tokens = self._histogram("request_input_tokens", "Tokens of a request", COUNTS)
        self.prompt_tokens = self._counter("prompt_tokens", "Tokens read")
        self.truncated = self._counter("truncated_texts", "Texts that were longer than the model reads")
        self.swaps = self._counter("bundle_swaps", "Versions that were opened or refused", ("result",))
        self.bundle = Gauge(
            "embfit_bundle_info",
            "The version that answers",
            ("name", "version", "model", "index", "backend", "precision"),
            registry=self.registry,
            multiprocess_mode="liveall",
        )
        self.bundle_loaded = Gauge(
            "embfit_bundle_loaded_timestamp_seconds",
            "When that version was opened",
            registry=self.registry,
            multiprocess_mode="liveall",
        )
        self.shadow_overlap = self._histogram(
            "shadow_overlap_ratio", "Share of the first documents that the shadow finds too", SHARES
        )
        self.shadow_seconds = self._seconds("shadow", "A query asked of the shadow")

    def exposition(self) -> bytes:
        """Return the metrics of all processes in Prometheus' text format."""
        if self._shared is None:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together, self._shared)  # type: ignore[no-untyped-call]  # prometheus_client does not type it
        return generate_latest(together)

    def observe_batch(self, facts: BatchFacts) -> None:
        """Count a batch."""
        self.batch_texts.observe(facts.texts)
        self.batch_tokens.observe(facts.padded)
        self.batch_padding.observe(1 - facts.tokens / facts.padded if facts.padded else 0.0)  # texts may have no token
        self.inference_seconds.observe(facts.seconds)

    def observe_swap(self, live: LiveBundle | None) -> None:
        """Count a version that was opened, or, with None, one that was refused."""
        self.swaps.labels("refused" if live is None else "opened").inc()
        if live is not None:
            manifest = live.bundle.manifest
            if self._shared is None:
                self.bundle.clear()
            elif self._answers is not None:  # the files keep old series
                self.bundle.labels(*self._answers).set(0)
            self._answers = (
                manifest.name,
                str(manifest.version),
                manifest.model.source,
                manifest.index.kind,
                live.bundle.encoder.back_end,
                live.bundle.encoder.computes_in,
            )
            self.bundle.labels(*self._answers).set(1)
            self.bundle_loaded.set(live.loaded)

    def _counter(self, name: str, told: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(f"embfit_{name}_total", told, labels, registry=self.registry)

    def _seconds(self, name: str, told: str, labels: tuple[str, ...] = ()) -> Histogram:
        return Histogram(
            f"embfit_{name}_duration_seconds", f"{told}, in seconds", labels, registry=self.registry, buckets=SECONDS
        )

    def _histogram(self, name: str, told: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"embfit_{name}", told, registry=self.registry, buckets=buckets)
