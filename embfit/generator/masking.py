"""Documents without the words of queries that were taken from them, used only in training.

A query that is a part of its document is found by equal strings. Training on such pairs teaches little else, so the
positive is the document without that part (the inverse cloze task: Lee et al. 2019). The masked documents are
additional rows after the corpus's, which are neither searched nor mined.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pyarrow as pa

from embfit.generator.extractive import without
from embfit.generator.protocol import GeneratedQuery
from embfit.records import TrainingSet
from embfit.text_digests import normalise

FEWEST_WORDS = 5  # words that a masked document keeps, at least


def masked_texts(queries: Iterable[GeneratedQuery]) -> dict[int, str]:
    """Return, by row, the texts of documents without the words of all queries that mask them.

    Documents of which too little would be left are missing.
    """
    taken: dict[int, list[GeneratedQuery]] = {}
    for query in queries:
        if query.provenance.get("positive"):
            taken.setdefault(query.document.row, []).append(query)
    found = {row: without(of[0].document, *(query.text for query in of)) for row, of in taken.items()}
    return {row: text for row, text in found.items() if len(text.split()) >= FEWEST_WORDS}


def mask_positives(
    training_set: TrainingSet, queries: Iterable[GeneratedQuery], texts: Mapping[int, str]
) -> TrainingSet:
    """Return a training set in which masked queries have the masked document as their positive.

    If one form of a document is relevant to a query, the other is never a negative of that query.

    Args:
        training_set: the miner's result.
        queries: the generated queries.
        texts: the masked documents, as `masked_texts` returns them.
    """
    from datasets import Dataset, concatenate_datasets  # takes a second to import
    from datasets.table import InMemoryTable

    if not texts:
        return training_set
    collection = training_set.collection
    corpus = collection.corpus.select_columns(["_id", "title", "text"])
    names = [f"{collection.document_ids[row]}#masked" for row in texts]
    added = pa.table({"_id": names, "title": [""] * len(names), "text": list(texts.values())})
    corpus = concatenate_datasets([corpus, Dataset(InMemoryTable(added.cast(corpus.features.arrow_schema)))])
    place = {row: len(collection.corpus) + number for number, row in enumerate(texts)}
    masked = {  # by text: equal queries of several documents have been merged into one
        (normalise(query.text), query.document.row)
        for query in queries
        if query.provenance.get("positive") and query.document.row in place
    }
    table = training_set.rows.data.table
    query_texts = map(normalise, collection.query_texts(table["query"].to_pylist()))
    whole = table["positives"].to_pylist()
    positives = [
        [place[row] if (text, row) in masked else row for row in rows]
        for text, rows in zip(query_texts, whole, strict=True)
    ]
    changed = sum(
        new != old for one, other in zip(positives, whole, strict=True) for new, old in zip(one, other, strict=True)
    )
    column = table.schema.get_field_index("positives")
    rows = table.set_column(column, table.schema.field(column), pa.array(positives, pa.list_(pa.int32())))
    relevant = {
        query: found | {place[row] for row in found if row in place} for query, found in training_set.relevant.items()
    }
    return replace(
        training_set,
        collection=replace(collection, corpus=corpus),
        rows=Dataset(InMemoryTable(rows)),
        relevant=relevant,
        facts={**training_set.facts, "masked_positives": changed},
    )
