"""What can be said about documents that have no queries: their words and lengths, the cost, and what would be written.

No quality is measured, and nothing is claimed about it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from embfit.assess.advice import Advice
from embfit.assess.candidates import ModelCandidate
from embfit.assess.late_interaction import storage_of
from embfit.generator.extractive import ExtractiveGenerator
from embfit.generator.pipeline import chosen_documents
from embfit.generator.protocol import Estimate, Generates, source_documents
from embfit.generator.training_queries import with_queries
from embfit.model import Encoder
from embfit.records import Collection
from embfit.report.formatting import count, duration
from embfit.store import Store

SAMPLE = 300  # documents that a training is timed on


def plan_queries(
    generator: Generates, collection: Collection, encoder: Encoder, store: Store, journals: Path
) -> Estimate:
    """Estimate what a generator would write about a collection's documents, without one request.

    Args:
        generator: the generator.
        collection: has the documents.
        encoder: embeds documents if the generator draws them from clusters.
        store: keeps embeddings.
        journals: the folder of journals, which have the answers that exist already.

    Raises:
        UserError: no document is long enough.
    """
    pool = generator.example_pool(collection)
    documents = chosen_documents(generator, pool, collection, lambda: encoder, store)
    return generator.estimate(collection, documents, journals)


def sample_with_queries(collection: Collection, each: int, seed: int) -> Collection:
    """Return a sample of `SAMPLE` documents with parts of their texts as training queries, to time a training on.

    Args:
        collection: has the documents.
        each: how many queries each document gets, if it has as many parts.
        seed: draws the documents and the parts.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(len(collection.corpus))[:SAMPLE])
    sample = replace(collection, corpus=collection.corpus.select(rows))
    writer = ExtractiveGenerator(queries=each, seed=seed)
    documents = source_documents(sample, range(len(rows)), writer.documents)
    queries = writer.generate(sample, documents, Path()).queries
    return with_queries(sample, {}, {"train": queries}, {"train": writer.name})


def conclude_documents(
    collection: Collection,
    generator: str,
    planned: Estimate,
    chosen: bool,
    candidates: Sequence[ModelCandidate],
    measured: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what `report.json` holds as `assessment` for documents without queries.

    Args:
        collection: has the documents.
        generator: the name of a generator.
        planned: what it would write.
        chosen: whether the user chose that generator.
        candidates: the base models, the configured one first.
        measured: all other measurements: `vocabulary`, `labels`, `cost`, `failed` and `late`.
    """
    reasons = list(_reasons(collection, what_is_written(generator, planned), chosen, candidates, measured))
    advice = Advice("data", _recommendation(generator, planned, chosen), reasons, decided_by=0)
    return {
        **asdict(advice),
        "candidates": [asdict(candidate) for candidate in candidates],
        "chunks": {},
        "power": {},
        "queries": {"generator": generator, **asdict(planned)},
        **measured,
    }


def _recommendation(generator: str, planned: Estimate, chosen: bool) -> str:
    total = planned.documents * planned.queries
    if not total:
        written = "Bring longer documents, or let a language model write queries about short ones (generator=api)"
    elif chosen:
        written = f"Fine-tune on queries that are written from the documents: {generator} writes up to {total:,}"
    else:
        written = (
            f"Write queries first: generator=extractive takes up to {total:,} from the documents without a language "
            "model, and generator=api or generator=local asks one"
        )
    return (
        f"{written}. Collect 100 to 200 real queries with their answers as well (data=pairs data.path=FILE "
        "data.corpus=DIR): only they show whether the model is good enough already, and whether fine-tuning helps."
    )


def _reasons(
    collection: Collection,
    written: str,
    chosen: bool,
    candidates: Sequence[ModelCandidate],
    measured: Mapping[str, Any],
) -> Iterator[str]:
    base, words, cost = candidates[0], measured["vocabulary"], measured["cost"]
    documents = count(len(collection.corpus), "document", "documents")
    yield f"{collection.name} has {documents} and no queries, so no quality could be measured."
    yield written
    if cut := round(base.truncated * len(collection.corpus)):
        longer = "document is" if cut == 1 else "documents are"
        yield (
            f"{cut:,} {longer} longer than the {base.max_length} tokens that the model reads; it does not see the "
            "rest. data=documents cuts files into pieces (data.piece_tokens)."
        )
    else:
        yield "No document is longer than the model reads."
    if copies := measured["labels"]["copied_documents"]:
        yield f"{copies:,} documents have the same text as another."
    examples = f", such as {', '.join(words['split_examples'][:3])}" if words["split_examples"] else ""
    unknown = f", and knows no piece of {words['unknown_share']:.1%}" if words["unknown_share"] else ""
    yield (
        f"The tokenizer splits {words['split_share']:.1%} of the documents' words into four pieces or "
        f"more{examples}{unknown}."
    )
    for name, reason in measured["failed"].items():
        yield f"{name} was not measured: {reason}"
    embedding = duration(len(collection.corpus) / base.documents_per_second)
    yield (
        f"Embedding all documents takes about {embedding} on this machine. An index takes {base.bytes_per_document:,} "
        "bytes a document with one float32 vector for each."
    )
    yield (
        f"Late interaction would take {storage_of(measured['late'])}. Whether it finds more is not known without "
        "queries."
    )
    if cost["estimates"]:
        (here,) = cost["estimates"]
        price = "" if here["price"] is None else f", and costs {here['price']:,.2f}"
        yield f"A fine-tuning on these queries takes about {duration(here['total'])} with embedding{price}."
    elif not chosen:
        yield (
            "How long a fine-tuning takes depends on the generator, which also chooses the miner and the training; "
            "task=assess generator=extractive measures it."
        )


def what_is_written(generator: str, planned: Estimate) -> str:
    """Say in a sentence how many queries a generator would write, and what they cost."""
    if not planned.documents:
        return f"Every document is too short for {generator} to take queries from (generator.documents.min_words)."
    about = count(planned.documents, "document", "documents")
    each = count(planned.queries, "query", "queries")
    if not planned.requests:
        return f"{generator} takes up to {each} from each of {about}, without a language model."
    price = "" if planned.cost is None else f", which cost {planned.cost:,.2f}"
    time = "" if planned.minutes is None else f", in about {planned.minutes:,.0f} minutes"
    answered = f", of which {planned.answered:,} are answered already" if planned.answered else ""
    return (
        f"{generator} would write {each} about each of {about}: {planned.requests:,} requests{answered}, and "
        f"about {planned.tokens:,} tokens{price}{time}."
    )
