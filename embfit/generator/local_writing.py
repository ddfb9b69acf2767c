"""One generation by a local model: plans requests, writes them in batches, and shares them with other processes."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from embfit.cluster import current_cluster
from embfit.generator.batch_writing import WritingBatch, write_batches
from embfit.generator.decoding import Prompt
from embfit.generator.journal import Journal
from embfit.generator.language_model import LanguageModel, ModelFiles, check_length
from embfit.generator.local_settings import LocalSettings
from embfit.generator.plan import QueryRequest, SourceDocument, plan_request, queries_per_document, share_out
from embfit.generator.prompt_pieces import PromptPieces, prompt_pieces
from embfit.generator.writing_jobs import WritingJob, batches, claim_jobs, record, wait_for_others
from embfit.progress import Advance, progress
from embfit.records import Collection
from embfit.style import StyleExample

log = logging.getLogger(__name__)

FEW_WEIGHTS = 300_000_000  # below which a model that was not trained for it writes few usable queries
EXAMPLE_SETS = 4  # of rotated examples; the model reads each set once, not once per document


@dataclass(frozen=True)
class _Wrote:
    """The result of one pass over the jobs.

    Args:
        elsewhere: the jobs that other processes were writing.
        written: the number of jobs that this process has written.
        tokens: the number of tokens that it read and wrote for them.
        seconds: the time that they took.
    """

    elsewhere: Sequence[WritingJob]
    written: int
    tokens: int
    seconds: float


class LocalWriting:
    """One generation by a local model.

    Args:
        generator: its settings.
        collection: has the documents.
        files: the model.
        is_trained: whether the model was trained to write these queries.
    """

    def __init__(
        self, generator: LocalSettings, files: ModelFiles, collection: Collection, is_trained: bool = False
    ) -> None:
        self.generator, self.files, self.collection, self.is_trained = generator, files, collection, is_trained
        self.pool = generator.example_pool(collection)
        self.facts: dict[str, Any] = {}
        self._shown: dict[str, tuple[str, list[StyleExample]]] = {}  # request → style, its examples

    @cached_property
    def model(self) -> LanguageModel:
        """The model, loaded when it is first used."""
        found = self.files.load(self.generator.device, self.generator.precision)
        log.info("%s writes: %.0f million weights", found.name, found.parameters / 1e6)
        return found

    def plan(self, documents: Sequence[SourceDocument]) -> list[QueryRequest]:
        """Return all requests, in the order of the documents: one for each style of a document."""
        made = self.generator
        wanted = queries_per_document(made.queries, len(self.collection.corpus))
        shares = {name: style.share for name, style in made.styles.items()}
        settings = {
            "model": self.files.name,
            "weights": self.files.digest,
            "form": "single" if made.form == "chat" else made.form,
            "temperatures": list(made.temperatures),
            "top_p": made.top_p,
            "top_k": made.top_k,
            "max_tokens": made.max_tokens,
            "document_tokens": made.document_tokens,
            "precision": made.precision,
        }
        found = []
        for document in documents:
            turned = str(int(document.digest[:8], 16) % EXAMPLE_SETS)
            for style, count in share_out(shares, wanted, document.digest, made.seed).items():
                shown = made.examples.choose(self.pool, style, turned, made.seed)
                request = plan_request(
                    document, style, made.styles[style], shown, count, settings, made.language, made.seed
                )
                self._shown[request.id] = style, shown
                found.append(request)
        return found

    def write(self, requests: Sequence[QueryRequest], journal: Journal, scope: str, total: int) -> None:
        """Write the queries of some requests, and record each answer in the journal.

        A process claims a request before it writes, so that several processes share the work and write nothing twice.

        Args:
            requests: the requests without an answer.
            journal: records claims and answers.
            scope: identifies the data set in the journal.
            total: the number of all requests, for the progress.
        """
        if self.generator.form != "document" and self.model.parameters < FEW_WEIGHTS and not self.is_trained:
            log.warning(
                "%s has %.0f million weights: without training for it, models below about 300 million write one usable "
                "query in five; train it on your own pairs (generator=trained), or look at queries.parquet first",
                *(self.files.name, self.model.parameters / 1e6),
            )
        waiting, written, tokens, seconds = self._jobs(requests), 0, 0, 0.0
        elsewhere: list[WritingJob] = []
        with progress("writing queries", total, "requests", None, total - len(requests)) as advance:
            while waiting:
                found = self._write_some(waiting, journal, scope, advance)
                written, tokens, seconds = written + found.written, tokens + found.tokens, seconds + found.seconds
                if elsewhere := [*elsewhere, *found.elsewhere]:
                    log.info("other processes are writing about %d documents; waiting for them", len(elsewhere))
                waiting, elsewhere = wait_for_others(elsewhere, journal, advance)
        self.facts = {
            "seconds": round(seconds, 1),
            "tokens_per_second": round(tokens / max(seconds, 1e-9), 1),
            "seconds_per_request": round(seconds / max(written, 1), 3),
            "million_weights": round(self.model.parameters / 1e6),
        }

    def _write_some(self, waiting: Sequence[WritingJob], journal: Journal, scope: str, advance: Advance) -> _Wrote:
        """Write the jobs that no other process has claimed, and record each answer."""
        elsewhere: list[WritingJob] = []
        written, tokens, seconds = 0, 0, 0.0

        def claim(batch: WritingBatch) -> WritingBatch:
            claimed, others = claim_jobs(batch.jobs, journal, scope)
            elsewhere.extend(others)
            if there := len(batch.jobs) - len(claimed) - len(others):
                advance(there)
            return replace(batch, jobs=claimed)

        planned, cluster = self._batches(waiting), current_cluster()
        began = time.monotonic()
        for jobs, samples in write_batches(self.model, planned, self.generator.sampling, claim, cluster):
            each = (time.monotonic() - began) / len(jobs)
            tokens += record(jobs, samples, self.model.read, each, journal, scope)
            written, seconds = written + len(jobs), seconds + time.monotonic() - began
            advance(len(jobs))
            began = time.monotonic()
        return _Wrote(elsewhere, written, tokens, seconds)

    def _jobs(self, requests: Sequence[QueryRequest]) -> list[WritingJob]:
        """Return requests with their prompts, tokenised."""
        pieces: dict[tuple[str, tuple[str, ...]], PromptPieces] = {}
        tokenizer, made = self.model.tokenizer, self.generator
        found = []
        for request in requests:
            style, shown = self._shown[request.id]
            key = (style, tuple(one.digest.hex() for one in shown))
            if key not in pieces:
                pieces[key] = prompt_pieces(made.form, made.styles[style], shown, tokenizer, made.language)
            text = " ".join(request.document.text.split())
            before, tokens = pieces[key].before, pieces[key].around(text, tokenizer, made.document_tokens)
            if self.model.is_seq_to_seq:  # its encoder reads the whole prompt
                before, tokens = (), [*before, *tokens]
            found.append(WritingJob(request, before, Prompt(tokens, request.seed)))
        self._check_length(found)
        return found

    def _batches(self, jobs: Sequence[WritingJob]) -> list[WritingBatch]:
        """Return the batches; those with the same prefix follow one another."""
        groups: dict[tuple[int, ...], list[WritingJob]] = {}
        for job in jobs:
            groups.setdefault(job.prefix, []).append(job)
        return [
            WritingBatch(prefix, batch)
            for prefix, group in groups.items()
            for batch in batches(group, self.generator.batch_size)
        ]

    def _check_length(self, jobs: Sequence[WritingJob]) -> None:
        """Check that the model has enough positions for the longest prompt and its query."""
        longest = max(len(job.prefix) + len(job.prompt.tokens) for job in jobs)
        written = 0 if self.model.is_seq_to_seq else self.generator.max_tokens  # the decoder has its own positions
        check_length(self.model.model, self.files.name, longest + written, self.generator.document_tokens)
