"""Queries by a language model that runs in this process."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from embfit.cluster import current_cluster
from embfit.errors import ConfigError
from embfit.generator.decoding import Prompt, Sampling
from embfit.generator.documents import DocumentChoice
from embfit.generator.filters import Filters
from embfit.generator.generated import Estimate, GeneratedQuery, Generation
from embfit.generator.jobs import WritingJob, batches, record, take, wait_for_others
from embfit.generator.journal import Journal
from embfit.generator.language_model import LanguageModel, ModelFiles
from embfit.generator.plan import (
    QueryRequest,
    SourceDocument,
    Wanted,
    plan_request,
    queries_per_document,
    scope_of,
    share_out,
)
from embfit.generator.prompt_pieces import LocalForm, PromptPieces, prompt_pieces
from embfit.generator.writing import Lot, write_lots
from embfit.hints import Location
from embfit.model.precision import Precision
from embfit.progress import Advance, progress
from embfit.records import Collection, Seed
from embfit.store import Store
from embfit.style import FewShot, Style, StyleExample
from embfit.style.template import find_template

log = logging.getLogger(__name__)

FEW_WEIGHTS = 300_000_000  # below which a model that was not trained for it writes few usable queries
GENERAL = "general.jsonl"  # examples of every style, about nothing in particular
EXAMPLE_SETS = 4  # of rotated examples: each is read once, and not once a document


@dataclass(frozen=True, kw_only=True)
class LocalGenerator:
    """Has a small language model write queries here: causal, or with an encoder and a decoder.

    Each document is read once for all of its queries, and few-shot examples once for all documents.

    Args:
        model: a folder, a `.gguf` file, or a name on the Hub.
        revision: branch, tag or commit on the Hub; None is the newest.
        gguf: the name of a GGUF file in the folder or on the Hub; None for a model in transformers' own form.
        form: `completion` continues a text (base models, and small ones); `chat` asks by the model's chat template;
            `document` shows the document alone (models trained so, such as docTTTTTquery).
        temperatures: how freely words are drawn, of a document's queries in turn.
        top_p: the share of the likeliest words that are drawn from.
        top_k: the number of words that are drawn from at most.
        max_tokens: the number of tokens of a query; one that is not at its end then is dropped.
        document_tokens: the number of a document's tokens that are read.
        batch_size: the number of documents at once; halved where memory is short.
        device: what computes: auto, cpu, cuda or mps.
        precision: the number format of the weights.
        queries: the number of queries of each document; `auto`: 50,000 over the number of documents, 3 to 10.
        styles: the kinds of queries, each with its share.
        examples: few-shot examples; rotated ones come in four sets.
        language: the language of the queries, which `form=chat` names; None for each document's own.
        documents: which documents get queries.
        filters: which queries are kept.
        journal: the file that records what was written; None is one in the store.
        seed: of whatever is drawn.

    Raises:
        ValueError: a value is wrong.
    """

    styles: dict[str, Style]
    model: Annotated[str | None, Location(required=True, example="FOLDER, FILE.gguf or a name on the Hub")] = None
    revision: str | None = None
    gguf: str | None = None
    form: LocalForm = "completion"
    temperatures: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (0.5, 0.7, 1.0)
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    top_k: Annotated[int, Field(ge=1)] = 256
    max_tokens: Annotated[int, Field(ge=1)] = 48
    document_tokens: Annotated[int, Field(ge=8)] = 200
    batch_size: Annotated[int, Field(ge=1)] = 48
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Precision = "auto"
    queries: Wanted = "auto"
    examples: FewShot = field(default_factory=FewShot)
    language: str | None = None
    documents: DocumentChoice = field(default_factory=DocumentChoice)
    filters: Filters = field(default_factory=Filters)
    journal: str | None = None
    seed: Seed = 0

    def __post_init__(self) -> None:
        if not sum(style.share for style in self.styles.values()):
            raise ValueError("styles: no style has a share above 0")

    @property
    def name(self) -> str:
        """What it is called where queries say who wrote them."""
        return f"local ({self.model})"

    @property
    def sampling(self) -> Sampling:
        """How tokens are drawn."""
        return Sampling(self.temperatures, self.top_p, self.top_k, self.max_tokens)

    def example_pool(self, collection: Collection) -> list[StyleExample]:
        """Return the examples that prompts may show; general ones where a base model would have none."""
        if self.form == "document" or not self.examples.count or self.examples.file or self.examples.split:
            return self.examples.load(collection, self.seed)
        return replace(self.examples, file=str(find_template(GENERAL))).load(collection, self.seed)

    def find_model(self, folder: Path) -> ModelFiles:
        """Find the model's files.

        Raises:
            ConfigError: no model is named.
            UserError: there is no such model.
        """
        if self.model is None:
            raise ConfigError("generator=local needs a model: generator.model=FOLDER_OR_FILE.gguf_OR_NAME")
        return ModelFiles.find(self.model, self.revision, self.gguf, Store(folder.parent))

    def estimate(self, collection: Collection, documents: Sequence[SourceDocument], folder: Path) -> Estimate:
        """Return what queries about some documents would take; nothing is written."""
        return self.estimate_with(self.find_model(folder), collection, documents, folder)

    def estimate_with(
        self, files: ModelFiles, collection: Collection, documents: Sequence[SourceDocument], folder: Path
    ) -> Estimate:
        """Return what queries about some documents would take by a model that was found."""
        writing = _Writing(self, files, collection)
        requests = writing.plan(documents)
        with Journal.at(self.journal, folder) as journal:
            waiting = [one for one in requests if journal.answer(one.entry).state in ("planned", "sent")]
            seconds = journal.seconds_per_answer(writing.files.name)
        return Estimate(
            documents=len(documents),
            queries=queries_per_document(self.queries, len(collection.corpus)),
            requests=len(requests),
            answered=len(requests) - len(waiting),
            tokens=sum(self.document_tokens + one.entry.count * self.max_tokens // 2 for one in waiting),
            minutes=None if seconds is None else len(waiting) * seconds / 60,
        )

    def generate(self, collection: Collection, documents: Sequence[SourceDocument], folder: Path) -> Generation:
        """Return queries about some documents; only those that the journal lacks are written.

        Raises:
            ConfigError: no model is named.
            UserError: the model or a template cannot be loaded.
            OSError: the journal cannot be written.
        """
        return self.generate_with(self.find_model(folder), collection, documents, folder)

    def generate_with(
        self,
        files: ModelFiles,
        collection: Collection,
        documents: Sequence[SourceDocument],
        folder: Path,
        is_trained: bool = False,
    ) -> Generation:
        """Return queries about some documents, by a model that was found.

        Args:
            files: the model.
            collection: has the documents.
            documents: what the queries are about.
            folder: where journals are kept.
            is_trained: whether the model was trained to write these queries, so that a small one will do.
        """
        writing = _Writing(self, files, collection, is_trained)
        requests = writing.plan(documents)
        scope = scope_of(requests)
        with Journal.at(self.journal, folder) as journal:
            journal.plan([request.entry for request in requests], scope)
            waiting = [one for one in requests if journal.answer(one.entry).state in ("planned", "sent")]
            if waiting:
                writing.write(waiting, journal, scope, len(requests))
            return self._read(journal, requests, scope, writing)

    def _read(self, journal: Journal, requests: Sequence[QueryRequest], scope: str, writing: _Writing) -> Generation:
        found: list[GeneratedQuery] = []
        answered = unfinished = 0
        for request in requests:
            answer = journal.answer(request.entry)
            if answer.state != "answered" or answer.text is None:
                continue
            answered += 1
            for place, one in enumerate(json.loads(answer.text)[: request.entry.count]):
                unfinished += not one["finished"]
                if one["text"]:
                    found.append(self._query(request, answer.id, place, one))
        facts: dict[str, Any] = {
            "requests": len(requests),
            "answered": answered,
            "malformed": 0,
            "tokens": journal.spent(scope).tokens,
            "cost": None,
            "unfinished": unfinished,
            **writing.facts,
        }
        return Generation(found, facts, writing.pool)

    def _query(self, request: QueryRequest, answered: str, place: int, one: dict[str, Any]) -> GeneratedQuery:
        return GeneratedQuery(
            id=f"{answered}-{place}",
            text=one["text"],
            document=request.document,
            style=request.style,
            request=answered,
            may_copy=self.styles[request.style].may_copy,
            finished=one["finished"],
            log_probability=one["log_probability"],
            provenance={
                "model": self.model,
                "temperature": self.sampling.temperature(place),
                "language": self.language,
                "seed": request.seed,
                "log_probability": one["log_probability"],
            },
        )


@dataclass(frozen=True)
class _Wrote:
    """What was written at one go.

    Args:
        elsewhere: the documents that other processes were writing about.
        written: the number of documents written about.
        tokens: the number of tokens that took.
        seconds: the time that took.
    """

    elsewhere: Sequence[WritingJob]
    written: int
    tokens: int
    seconds: float


class _Writing:
    """One generation by a local model.

    Args:
        generator: its settings.
        collection: has the documents.
        files: the model.
        is_trained: whether the model was trained to write these queries.
    """

    def __init__(
        self, generator: LocalGenerator, files: ModelFiles, collection: Collection, is_trained: bool = False
    ) -> None:
        self.generator, self.files, self.collection, self.is_trained = generator, files, collection, is_trained
        self.pool = generator.example_pool(collection)
        self.facts: dict[str, Any] = {}
        self._shown: dict[str, tuple[str, list[StyleExample]]] = {}  # request → style, its examples

    @cached_property
    def model(self) -> LanguageModel:
        """The model, loaded when something is to be written."""
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
        """Have queries written, and each document's recorded when they are there.

        A document is taken before it is written about, so that several processes share the work and none does it twice.
        """
        if self.generator.form != "document" and self.model.parameters < FEW_WEIGHTS and not self.is_trained:
            log.warning(
                "%s has %.0f million weights: of what models below about 300 million write without training for it, a "
                "fifth is usable; train it on your own pairs (generator=trained), or look at queries.parquet first",
                *(self.files.name, self.model.parameters / 1e6),
            )
        waiting, written, tokens, seconds = list(requests), 0, 0, 0.0
        with progress("writing queries", total, "requests", None, total - len(requests)) as advance:
            while waiting:
                found = self._write_some(waiting, journal, scope, advance)
                written, tokens, seconds = written + found.written, tokens + found.tokens, seconds + found.seconds
                waiting = wait_for_others(found.elsewhere, journal)
        self.facts = {
            "seconds": round(seconds, 1),
            "tokens_per_second": round(tokens / max(seconds, 1e-9), 1),
            "seconds_per_request": round(seconds / max(written, 1), 3),
            "million_weights": round(self.model.parameters / 1e6),
        }

    def _write_some(self, requests: Sequence[QueryRequest], journal: Journal, scope: str, advance: Advance) -> _Wrote:
        """Write about documents that no other process is writing about, and record each when it is there."""
        elsewhere: list[WritingJob] = []
        written, tokens, seconds = 0, 0, 0.0

        def take_lot(lot: Lot) -> Lot:
            taken, others = take(lot.jobs, journal, scope)
            elsewhere.extend(others)
            if there := len(lot.jobs) - len(taken) - len(others):
                advance(there)
            return replace(lot, jobs=taken)

        lots, cluster = self._lots(requests), current_cluster()
        began = time.monotonic()
        for jobs, samples in write_lots(self.model, lots, self.generator.sampling, take_lot, cluster):
            each = (time.monotonic() - began) / len(jobs)
            tokens += record(jobs, samples, self.model.read, each, journal, scope)
            written, seconds = written + len(jobs), seconds + time.monotonic() - began
            advance(len(jobs))
            began = time.monotonic()
        return _Wrote(elsewhere, written, tokens, seconds)

    def _lots(self, requests: Sequence[QueryRequest]) -> list[Lot]:
        """Return what is written at once; lots whose prompts begin alike follow one another."""
        pieces: dict[tuple[str, tuple[str, ...]], PromptPieces] = {}
        groups: dict[tuple[int, ...], list[WritingJob]] = {}
        tokenizer, made = self.model.tokenizer, self.generator
        for request in requests:
            style, shown = self._shown[request.id]
            key = (style, tuple(one.digest.hex() for one in shown))
            if key not in pieces:
                pieces[key] = prompt_pieces(made.form, made.styles[style], shown, tokenizer, made.language)
            text = " ".join(request.document.text.split())
            prompt = Prompt(pieces[key].around(text, tokenizer, made.document_tokens), request.seed)
            groups.setdefault(pieces[key].before, []).append(WritingJob(request, prompt))
        lots = []
        for before, jobs in groups.items():
            if self.model.is_seq_to_seq:
                jobs, before = [job.behind(before) for job in jobs], ()
            lots += [Lot(before, batch) for batch in batches(jobs, made.batch_size)]
        return lots
