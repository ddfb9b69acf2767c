"""The pipeline of every miner: examples → a source's candidates → filters → sampling → training set, in blocks."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from embfit.atomic_files import write_text
from embfit.errors import UserError
from embfit.miner.examples import SPLIT, TrainingQueries, training_examples
from embfit.miner.mining_counts import MiningCounts
from embfit.miner.selection import Negatives
from embfit.miner.training_set import SCHEMA, training_rows
from embfit.records import Collection, TrainingSet
from embfit.store import Store

log = logging.getLogger(__name__)

VERSION = 10  # of the negatives in the store; 10 does not count the query itself among a focused blend's mistakes

Find: TypeAlias = Callable[[TrainingQueries, int], Negatives]
"""A function that finds the negatives of a block of examples; the block's number seeds what is drawn."""


def mine(
    collection: Collection,
    store: Store,
    miner: str,
    key: Mapping[str, Any],
    prepare: Callable[[TrainingQueries], Find],
    wanted: int,
) -> TrainingSet:
    """Return a collection's training set with mined negatives, from the store if they were mined before.

    Args:
        collection: the collection with the training split.
        store: the store that keeps the result, under the collection's digests and `key`.
        miner: the miner's name.
        key: everything else that the result depends on: parameters and the encoder's fingerprint.
        prepare: returns the function that finds a block's negatives; it is called with all examples, and only if the
            store has no result.
        wanted: the negatives wanted per query; queries with fewer are counted.

    Raises:
        UserError: there is no training pair, or `unreached=drop` left none.
    """
    examples = training_examples(collection)
    full_key = {
        "miner": miner,
        "corpus": collection.corpus_digest,
        "queries": collection.queries_digest,
        "qrels": collection.qrels_digest(SPLIT),
        "exclude_self": collection.exclude_self,
        **key,
    }

    def build(folder: Path) -> None:
        counts = MiningCounts(wanted)
        with pa.OSFile(str(folder / "rows.arrow"), "wb") as file, pa.ipc.new_stream(file, SCHEMA) as writer:
            find = prepare(examples)
            for number, block in enumerate(examples.blocks()):
                negatives = find(block, number)
                writer.write_batch(training_rows(block, negatives, miner))
                counts.add(block, negatives)
        write_text(folder / "facts.json", json.dumps(counts.facts()))

    folder = store.entry("negatives", full_key, build, version=VERSION)
    facts = {
        "miner": miner,
        "wanted": wanted,
        "queries": len(examples),
        "positives": len(examples.positives.values),
        "judged_dropped": examples.dropped,
        **json.loads((folder / "facts.json").read_text(encoding="utf-8")),
    }
    if wanted or facts["mined"] or facts["judged"]:
        log.info(_summary(facts, wanted))
    from datasets import Dataset  # takes a second to import

    rows = Dataset.from_file(str(folder / "rows.arrow"))
    if not len(rows):
        raise UserError(
            f"{miner} finds no positive of any of the {len(examples)} training queries, and miner.unreached=drop "
            "leaves such queries out; set miner.unreached=keep, or raise miner.depth"
        )
    return TrainingSet(collection, rows, examples.relevant(), facts)


def _summary(facts: Mapping[str, Any], wanted: int) -> str:
    unused = f" (miner.judged leaves {facts['judged_unused']} more out)" if facts["judged_unused"] else ""
    given = (
        f"; {facts['judged']} negatives come from the data's judgements{unused}" if facts["judged"] or unused else ""
    )
    short = f"; {facts['short']} queries have fewer than {wanted}" if facts["short"] else ""
    unreached = f"; no positive was found for {facts['unreached']} queries" if facts["unreached"] else ""
    dropped = f"; {facts['dropped']} are left out of training (miner.unreached=drop)" if facts["dropped"] else ""
    found = f"mined {facts['mined']} negatives ({facts['miner']}) for {facts['queries']} training queries"
    return f"{found}{given}{short}{unreached}{dropped}"
