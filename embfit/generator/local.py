"""Queries by a language model that runs in this process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embfit.errors import ConfigError
from embfit.generator.journal import Journal
from embfit.generator.language_model import ModelFiles
from embfit.generator.local_settings import LocalSettings
from embfit.generator.local_writing import LocalWriting
from embfit.generator.plan import QueryRequest, SourceDocument, queries_per_document, scope_of
from embfit.generator.protocol import Estimate, GeneratedQuery, Generation
from embfit.records import Collection
from embfit.store import Store


@dataclass(frozen=True, kw_only=True)
class LocalGenerator(LocalSettings):
    """Writes queries with a small language model in this process: causal, or with an encoder and a decoder.

    The model reads each document once for all of its queries, and few-shot examples once for all documents.
    `LocalSettings` documents the parameters.
    """

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
        """Estimate what queries about some documents would take, without writing any."""
        return self.estimate_with(self.find_model(folder), collection, documents, folder)

    def estimate_with(
        self, files: ModelFiles, collection: Collection, documents: Sequence[SourceDocument], folder: Path
    ) -> Estimate:
        """Estimate what queries about some documents would take with a given model."""
        writing = LocalWriting(self, files, collection)
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
        """Return queries about some documents by a given model.

        Args:
            files: the model.
            collection: has the documents.
            documents: the documents that the queries are about.
            folder: the folder of journals.
            is_trained: whether the model was trained to write these queries, so that a small one is sufficient.
        """
        writing = LocalWriting(self, files, collection, is_trained)
        requests = writing.plan(documents)
        scope = scope_of(requests)
        with Journal.at(self.journal, folder) as journal:
            journal.plan([request.entry for request in requests], scope)
            waiting = [one for one in requests if journal.answer(one.entry).state in ("planned", "sent")]
            if waiting:
                writing.write(waiting, journal, scope, len(requests))
            return self._read(journal, requests, scope, writing)

    def _read(
        self, journal: Journal, requests: Sequence[QueryRequest], scope: str, writing: LocalWriting
    ) -> Generation:
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
