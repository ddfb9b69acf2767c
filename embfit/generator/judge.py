"""A language model's grades of how well documents answer the queries that were written about them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from embfit.errors import ConfigError, UserError
from embfit.generator.answers import BEST, VERDICT, read_grade
from embfit.generator.asking import ask_all
from embfit.generator.asking_settings import ModelServer
from embfit.generator.budget import Price
from embfit.generator.client import check_server, header_key
from embfit.generator.journal import Journal
from embfit.generator.journal_tables import JournalEntry
from embfit.generator.plan import QueryRequest, SourceDocument, scope_of
from embfit.store import digest
from embfit.style.template import JUDGED, Template, read_template

log = logging.getLogger(__name__)

STYLE = "judge"  # in the journal's column for the style of queries
GROUP = "generator.filters.judge"  # the configuration key of these settings
MOST_MALFORMED = 9  # answers without a grade for a pair, over all runs: three runs of three tries


@dataclass(frozen=True)
class JudgedPair:
    """A query and the document that it was written about.

    Args:
        query: the query's text.
        document: the document's text.
        id: the document's id.
    """

    query: str
    document: str
    id: str


@dataclass(frozen=True)
class Verdicts:
    """A judge's grades of some pairs.

    Args:
        grades: 0 to 3; None without a grade.
        facts: counts of requests, for the report.
    """

    grades: Sequence[int | None]
    facts: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Judge(ModelServer):
    """Grades pairs with a model on any server with OpenAI's API, from 0 (unrelated) to 3 (the answer).

    Each pair is one request, which a journal records before it is sent and when it is answered, as for queries. An
    existing grade is reused for every threshold and limit of tokens. Later runs send a pair without a grade again,
    since the cause may be gone, until nine answers in total had no grade; another limit of tokens restarts this count.
    `ModelServer` documents the settings of the server and of requests.

    Args:
        url: the server's address; needed only with a model.
        model: the model's name on the server; None turns the judge off.
        least: queries with a lower grade are dropped; pairs without a grade are kept.
        template: the Markdown file of the prompt, with the placeholders `{query}` and `{document}`.
        document_words: how many words of a document are read.
        temperature: the sampling temperature; None leaves it to the server.
        max_tokens: the most tokens of an answer.
        again: which pairs without a grade another run sends again: `malformed`, `refused`, both, or neither.
    """

    url: str | None = None
    model: str | None = None
    least: Annotated[int, Field(ge=1, le=BEST)] = 2
    template: str = "judge.md"
    document_words: Annotated[int, Field(ge=8)] = 350
    temperature: Annotated[float, Field(ge=0)] | None = 0.0
    max_tokens: Annotated[int, Field(ge=8)] = 100
    again: tuple[Literal["malformed", "refused"], ...] = ("malformed",)

    def __post_init__(self) -> None:
        self.check(GROUP)
        if self.url is not None and self.model is None:
            raise ValueError(f"url is set and no model is, so nothing would be graded; set {GROUP}.model=NAME")

    @cached_property
    def question(self) -> Template:
        """The template of the prompt.

        Raises:
            UserError: the file cannot be read, or lacks a placeholder.
        """
        found = read_template(self.template, JUDGED)
        if not found.reads("query"):
            raise UserError(f"{self.template} has no {{query}}, so no pair could be judged; add it")
        return found

    def verdicts(self, pairs: Sequence[JudgedPair], folder: Path) -> Verdicts:
        """Return the grades of pairs; only requests without an answer in the journal are sent.

        Args:
            pairs: queries with their documents.
            folder: the folder of journals.

        Raises:
            ConfigError: no server is named, or the key is not set.
            UserError: the template cannot be read, or the server denies access, cannot be reached or gives no answer.
            OSError: the journal cannot be written.
        """
        if self.model is None:
            raise ConfigError(f"a judge needs a model: {GROUP}.model=NAME, as the server knows it")
        address, key = f"{check_server(self.url, GROUP)}/chat/completions", header_key(self.key_variable, GROUP)
        requests = [self._request(pair) for pair in pairs]
        scope = scope_of(requests)
        facts: dict[str, Any] = {}
        with Journal.at(self.journal, folder) as journal:
            again = journal.plan([request.entry for request in requests], scope, self.again, MOST_MALFORMED)
            if again:
                log.info("%s gave no grade to %d pairs in an earlier run: sending them again", self.model, again)
            waiting = [one for one in requests if journal.answer(one.entry).state in ("planned", "sent")]
            if waiting:
                different = list({request.id: request for request in waiting}.values())
                done = len(requests) - len(waiting)
                result = ask_all(
                    address,
                    key,
                    self.timeout,
                    journal,
                    self.asking(self._sampling, expected=VERDICT, group=GROUP),
                    scope,
                    different,
                    done,
                )
                facts = {"judge_out_of_budget": result.out_of_budget}
            answers = [journal.answer(request.entry) for request in requests]
            spent = journal.spent(scope)
        grades = [
            read_grade(answer.text) if answer.state == "answered" and answer.text is not None else None
            for answer in answers
        ]
        states = (answer.state for answer, grade in zip(answers, grades, strict=True) if grade is None)
        lacking: Counter[str] = Counter(states)
        if lacking:
            log.warning("%s", self._ungraded(len(requests), lacking))
        totals = {
            "judge": self.model,
            "judge_requests": len(requests),
            "judge_unanswered": lacking.total(),
            "judge_malformed": lacking["malformed"],
            "judge_refused": lacking["refused"],
            "judge_tokens": spent.tokens,
            "judge_cost": spent.cost if self.price != Price() else None,
        }
        return Verdicts(grades, {**totals, **facts})

    def _ungraded(self, pairs: int, lacking: Counter[str]) -> str:
        """Return a message that says how many pairs have no grade, why, and what to do."""
        reasons = {"malformed": "because no answer had one", "refused": "because the server refused"}
        if "malformed" in self.again:
            reasons["malformed"] += f" (another run asks again, until {MOST_MALFORMED} answers had none)"
        if "refused" not in self.again:
            reasons["refused"] += f" ({GROUP}.again=[malformed,refused] asks again)"
        parts = [f"{lacking[state]:,} {words}" for state, words in reasons.items() if lacking[state]]
        if waiting := lacking["planned"] + lacking["sent"]:
            parts.append(f"{waiting:,} not answered yet")
        return f"{lacking.total():,} of {pairs:,} pairs have no grade and are kept: {'; '.join(parts)}"

    def _request(self, pair: JudgedPair) -> QueryRequest:
        document = " ".join(pair.document.split()[: self.document_words])
        key = {
            "judge": self.question.digest,
            "query": pair.query,
            "document": document,
            "model": self.model,
            "sampling": self._sampling,
        }
        name, family = digest({**key, "max_tokens": self.max_tokens})[:20], digest(key)[:20]
        prompt = self.question.fill({"query": pair.query, "document": document})
        about = SourceDocument(0, pair.id, document, "", document, name)
        entry = JournalEntry(name, family, 1, pair.id, STYLE, str(self.model))
        return QueryRequest(entry, about, STYLE, prompt, int(name[:7], 16))

    @property
    def _sampling(self) -> dict[str, Any]:
        drawn = {} if self.temperature is None else {"temperature": self.temperature}
        return {**drawn, **(self.extra or {})}
