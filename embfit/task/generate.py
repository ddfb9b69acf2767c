"""`task=generate`: writes queries about documents that have none, and makes a training data set of them."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any

from hydra.core.override_parser.types import Quote
from pydantic import Field

from embfit.compose.command_line import quoted, typed
from embfit.compose.tasks import task
from embfit.errors import UserError
from embfit.generator.dataset import QUERIES, evaluation_splits, write_dataset, write_queries
from embfit.generator.extractive import masked_documents
from embfit.generator.pipeline import chosen_documents, filter_queries, journals_of
from embfit.generator.protocol import Estimate, Generates
from embfit.generator.summary import describe_generation, why_none_is_kept
from embfit.model import EncoderChoice
from embfit.records import Report
from embfit.review.decisions import answers_of, apply_decisions, read_decisions
from embfit.run.devices import Devices
from embfit.run.folder import RunFolder
from embfit.store import Store
from embfit.task.data_facts import describe
from embfit.task.earlier_documents import EarlierDocuments
from embfit.task.protocols import Data
from embfit.task.reporting import REPORT, close
from embfit.type_hints import Having

log = logging.getLogger(__name__)


@task(outputs=(*REPORT, "dataset", "queries.parquet"), paid=("generation",), spreads=True)
def generate(
    data: Data,
    model: EncoderChoice,
    generator: Annotated[Generates, Having("generate")],
    store: Store,
    run: RunFolder,
    devices: Devices,
    dry_run: bool = False,
    labels: bool = False,
    masked: bool = False,
    examples: Annotated[int, Field(ge=0)] = 10,
    review: str | None = None,
) -> Report | None:
    """Write queries about documents, mark unfit ones, and make a data set of the others.

    Args:
        data: the documents.
        model: embeds texts, to choose different documents, drop similar queries and test what a query finds.
        generator: writes the queries.
        store: keeps requests, answers and embeddings.
        run: the run folder, which gets `dataset/`, `queries.parquet` and the report.
        devices: all of them encode.
        dry_run: whether to print only the number and cost of the remaining requests.
        labels: whether to keep the collection's own training pairs beside the generated ones.
        masked: whether to pair a query that is a part of a document with a copy of the document without that part.
        examples: the number of kept queries in the report, and of queries that each filter drops.
        review: the file that reviewers export from the page of `embfit review`; it overrides the filters.

    Raises:
        UserError: the documents are too short, the server denies access, or no query is kept.
    """
    decisions = None if review is None else read_decisions(Path(review))
    with run.stage("load data"):
        collection = data.load(store)
    encoder = cache(partial(model.load, *devices.all, store=store))  # some generators and filters need no encoder
    journals = journals_of(store, run.dir)
    with run.stage("choose documents"):
        pool = generator.example_pool(collection)
        documents = chosen_documents(generator, pool, collection, encoder, store)
        earlier = EarlierDocuments.read(generator, store, run)
        changes = earlier.compare(documents, collection.name)
    if dry_run:
        print(_estimated(generator.estimate(collection, documents, journals), generator.filters.judge.model))
        return None
    with run.stage("generate queries"):
        made = generator.generate(collection, documents, journals)
    with run.stage("filter queries"):
        shown = {collection.query_ids[example.query_row] for example in pool if example.query_row is not None}
        splits, left = evaluation_splits(collection, shown, labels)
        written = filter_queries(generator, made, collection, encoder, store, journals, devices.first)
        (written,), reviewed = apply_decisions([written], decisions)
    marks, kept = written.marks, written.kept
    write_queries(run.dir / QUERIES, made.queries, marks, generator.name, answers_of(decisions))
    facts = describe_generation(generator.name, made, marks, examples) | {"queries_left_out_of_evaluation": left}
    facts |= {**changes, **reviewed}
    earlier.replace(documents, kept)
    report = Report(
        task="generate",
        evaluations=[],
        comparisons=[],
        data=describe(collection),
        timings=run.timings,
        sections={"generation": facts},
    )
    if kept:
        with run.stage("write data set"):
            added = masked_documents(kept) if masked else {}
            write_dataset(run.dir / "dataset", collection, kept, splits, added)
    close(report, run, collection, made=_made(run, facts, generator.name) if kept else ())
    if not kept:
        raise UserError(_nothing_kept(facts, run))
    return report


def _estimated(found: Estimate, judge: str | None) -> str:
    asked = "none: no language model is needed"
    if found.requests:
        asked = f"{found.requests:,}, of which {found.answered:,} are answered"
    lines = [f"documents  {found.documents:,}, {found.queries} queries each", f"requests   {asked}"]
    if found.pairs:
        lines.append(f"training   the model first learns from {found.pairs:,} pairs of the collection")
    if found.requests:
        price = (
            "set generator.price.input and generator.price.output to see one"
            if found.cost is None
            else f"{found.cost:,.2f}"
        )
        time = "known once the model has answered" if found.minutes is None else f"about {found.minutes:,.0f} minutes"
        lines += [f"tokens     about {found.tokens:,}", f"price      {price}", f"time       {time}"]
    if judge is not None:
        lines.append(f"judge      {found.documents * found.queries:,} requests to {judge} at most, one for each query")
    return "\n".join(lines)


def _made(run: RunFolder, facts: Mapping[str, Any], name: str) -> list[tuple[str, str]]:
    """Return the task's files besides the report, and how to use the data set."""
    folder = run.dir / "dataset"
    source = shlex.quote(f"data.queries_from={{train: {quoted(name, Quote.double)}}}")
    return [
        ("queries", f"{facts['kept']:,} kept of {facts['generated']:,}: {run.dir / QUERIES}"),
        ("data", str(folder)),
        ("use it", f"python -m embfit data=beir {typed('data.path', str(folder))} {source}"),
    ]


def _nothing_kept(facts: Mapping[str, Any], run: RunFolder) -> str:
    return f"no query is kept: {why_none_is_kept(facts)}; {run.dir / 'report.html'} shows examples"
