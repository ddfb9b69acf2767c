"""Queries from any server with OpenAI's API."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from embfit.errors import ConfigError
from embfit.generator.answers import Form, read_queries
from embfit.generator.asking import ask_all
from embfit.generator.asking_settings import ModelServer
from embfit.generator.budget import Price
from embfit.generator.client import check_server, header_key
from embfit.generator.documents import DocumentChoice
from embfit.generator.filters import Filters
from embfit.generator.journal import Journal
from embfit.generator.journal_tables import State
from embfit.generator.plan import (
    QueryRequest,
    SourceDocument,
    Wanted,
    in_shard,
    plan_request,
    queries_per_document,
    read_shard,
    scope_of,
    share_out,
)
from embfit.generator.protocol import Estimate, GeneratedQuery, Generation
from embfit.records import Collection, Seed
from embfit.style import FewShot, Style, StyleExample

log = logging.getLogger(__name__)

BYTES_PER_TOKEN = 4  # of prose, for estimates
TOKENS_PER_QUERY = 25  # for estimates


@dataclass(frozen=True, kw_only=True)
class ApiGenerator(ModelServer):
    """Requests queries from a server: several an answer of a model that follows instructions, or one of a base model.

    `ModelServer` documents the settings of the server and of requests.

    Args:
        form: `chat` for models that follow instructions, `completion` for base models.
        temperature: the sampling temperature; None leaves it to the server.
        top_p: tokens are drawn from the most probable ones whose probabilities add up to this; None leaves it to the
            server.
        queries: the number of queries of each document; `auto` is 50,000 divided by the number of documents, within 3
            to 10.
        styles: the kinds of queries, each with its share.
        examples: few-shot examples.
        language: the language of the queries ("German"); None for each document's own.
        documents: which documents get queries.
        filters: which queries are kept.
        again: whether to send requests again that were `malformed` or `refused` before: a list of these two words.
        shard: the part of the requests that this machine sends, such as 0/2 and 1/2; None for all.
        answers_from: journals of other machines, whose answers are used instead of sending these requests again.
        seed: draws documents, examples and pauses, and determines the seeds that are sent.

    Raises:
        ValueError: a value is wrong.
    """

    styles: dict[str, Style]
    form: Form = "chat"
    temperature: Annotated[float, Field(ge=0)] | None = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] | None = 0.95
    queries: Wanted = "auto"
    examples: FewShot = field(default_factory=FewShot)
    language: str | None = None
    documents: DocumentChoice = field(default_factory=DocumentChoice)
    filters: Filters = field(default_factory=Filters)
    again: list[str] | None = None
    shard: str | None = None
    answers_from: tuple[str, ...] = ()
    seed: Seed = 0

    def __post_init__(self) -> None:
        self.check("generator")
        if not sum(style.share for style in self.styles.values()):
            raise ValueError("styles: no style has a share above 0")
        if wrong := set(self.again or ()) - {"malformed", "refused"}:
            raise ValueError(f"again: expected malformed, refused or both, got {', '.join(sorted(wrong))}")
        if self.shard is not None:
            read_shard(self.shard)

    @property
    def name(self) -> str:
        """The generator's name in the provenance of queries."""
        return f"api ({self.model})"

    def example_pool(self, collection: Collection) -> list[StyleExample]:
        """Return the examples that prompts may contain; general ones if a base model would have none."""
        if self.form == "completion":
            return self.examples.load_or_general(collection, self.seed)
        return self.examples.load(collection, self.seed)

    def plan(self, collection: Collection, documents: Sequence[SourceDocument]) -> list[QueryRequest]:
        """Return all requests, in the order of the documents.

        Raises:
            ConfigError: no model is named.
            UserError: a template or the examples cannot be read.
        """
        if self.model is None:
            raise ConfigError("generator=api needs a model: generator.model=NAME, as the server knows it")
        pool = self.example_pool(collection)
        wanted = queries_per_document(self.queries, len(collection.corpus))
        return [request for document in documents for request in self._requests(document, pool, wanted)]

    def _requests(self, document: SourceDocument, pool: Sequence[StyleExample], wanted: int) -> Iterator[QueryRequest]:
        shares = {name: style.share for name, style in self.styles.items()}
        for style, count in share_out(shares, wanted, document.digest, self.seed).items():
            shown = self.examples.choose(pool, style, document.digest, self.seed)
            alike = [(1, repeat) for repeat in range(count)] if self.form == "completion" else [(count, 0)]
            for queries, repeat in alike:
                yield plan_request(
                    document,
                    style,
                    self.styles[style],
                    shown,
                    queries,
                    self._settings,
                    self.language,
                    self.seed,
                    repeat,
                )

    @property
    def _settings(self) -> dict[str, Any]:
        """All that an answer depends on besides its prompt."""
        return {"model": self.model, "form": self.form, "max_tokens": self.max_tokens, **self._sampling}

    @property
    def _sampling(self) -> dict[str, Any]:
        drawn = {"temperature": self.temperature, "top_p": self.top_p}
        return {**{name: value for name, value in drawn.items() if value is not None}, **(self.extra or {})}

    def estimate(self, collection: Collection, documents: Sequence[SourceDocument], folder: Path) -> Estimate:
        """Estimate what queries about some documents would take, without sending a request."""
        requests = self._own(self.plan(collection, documents))
        with self._open_journal(folder) as journal:
            waiting = [request for request in requests if journal.answer(request.entry).state in ("planned", "sent")]
            seconds = journal.seconds_per_answer(str(self.model))
        read = sum(len(request.prompt.encode()) // BYTES_PER_TOKEN for request in waiting)
        written = sum(request.entry.count * TOKENS_PER_QUERY for request in waiting)
        return Estimate(
            documents=len(documents),
            queries=queries_per_document(self.queries, len(collection.corpus)),
            requests=len(requests),
            answered=len(requests) - len(waiting),
            tokens=read + written,
            cost=None if self.price == Price() else self.price.of(read, written),
            minutes=None if seconds is None else len(waiting) * seconds / self.concurrency / 60,
        )

    def generate(self, collection: Collection, documents: Sequence[SourceDocument], folder: Path) -> Generation:
        """Return queries about some documents; only requests without an answer in the journal are sent.

        Raises:
            ConfigError: no server or model is named, or the key is not set.
            UserError: the server denies access, cannot be reached, or gives no answer.
            OSError: the journal cannot be written.
        """
        address = f"{check_server(self.url)}/{'chat/completions' if self.form == 'chat' else 'completions'}"
        key = header_key(self.key_variable)
        requests = self._own(self.plan(collection, documents))
        scope = scope_of(requests)
        again: list[State] = [state for state in ("malformed", "refused") if state in (self.again or ())]
        facts: dict[str, Any] = {}
        with self._open_journal(folder) as journal:
            journal.plan([request.entry for request in requests], scope, again)
            waiting = [request for request in requests if journal.answer(request.entry).state in ("planned", "sent")]
            if waiting:
                done = len(requests) - len(waiting)
                result = ask_all(
                    address,
                    key,
                    self.timeout,
                    journal,
                    self.asking(self._sampling, self.form),
                    scope,
                    waiting,
                    done,
                    self.seed,
                )
                facts = {"out_of_budget": result.out_of_budget, "slowed_down": result.pace.decreases}
            return self._read(journal, requests, scope, facts, self.example_pool(collection))

    @contextmanager
    def _open_journal(self, folder: Path) -> Iterator[Journal]:
        """Open the journal, with the answers of other machines."""
        with Journal.at(self.journal, folder) as journal:
            for other in self.answers_from:
                count = journal.adopt_answers(Path(other).expanduser())
                log.info("%s: %d answers are new here", other, count)
            yield journal

    def _own(self, requests: list[QueryRequest]) -> list[QueryRequest]:
        """Return the requests of this machine's shard."""
        if self.shard is None:
            return requests
        part = read_shard(self.shard)
        return [request for request in requests if in_shard(request.id, part)]

    def _read(
        self,
        journal: Journal,
        requests: Sequence[QueryRequest],
        scope: str,
        facts: Mapping[str, Any],
        pool: Sequence[StyleExample],
    ) -> Generation:
        found: list[GeneratedQuery] = []
        counts = dict.fromkeys(("answered", "malformed", "refused", "planned", "sent"), 0)
        for request in requests:
            answer = journal.answer(request.entry)
            counts[answer.state] += 1
            if answer.state == "answered" and answer.text is not None:
                texts = read_queries(answer.text, request.entry.count, self.form)
                found += [self._query(request, answer.id, place, text) for place, text in enumerate(texts)]
        waiting = counts.pop("planned") + counts.pop("sent")
        spent = journal.spent(scope)
        totals = {
            "requests": len(requests),
            **counts,
            "waiting": waiting,
            "sent": spent.requests,
            "tokens": spent.tokens,
            "cost": spent.cost if self.price != Price() else None,
        }
        return Generation(found, {**totals, **facts}, pool)

    def _query(self, request: QueryRequest, answered: str, place: int, text: str) -> GeneratedQuery:
        return GeneratedQuery(
            id=f"{answered}-{place}",
            text=text,
            document=request.document,
            style=request.style,
            request=answered,
            may_copy=self.styles[request.style].may_copy,
            provenance={
                "model": self.model,
                "temperature": self.temperature,
                "language": self.language,
                "seed": request.seed,
            },
        )
