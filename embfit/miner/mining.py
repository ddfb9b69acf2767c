"""The pipeline of every miner: examples → candidates of a source → filters → sampling → training set, in blocks."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from embfit.errors import UserError
from embfit.miner.examples import SPLIT, TrainingQueries, training_examples
from embfit.miner.selection import Negatives
from embfit.miner.tally import Tally
from embfit.miner.training_set import SCHEMA, training_rows
from embfit.records import Collection, TrainingSet
from embfit.store import Store, write_text

log = logging.getLogger(__name__)

VERSION = 8  # of the store's negatives: 8 scores positives as it scores candidates

Find: TypeAlias = Callable[[TrainingQueries, int], Negatives]
"""Finds the negatives of a block of the examples, given its number, which seeds what is drawn."""


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
        collection: has the training split.
        store: keeps the result under the collection's digests and `key`.
        miner: its name.
        key: everything else that the result depends on: parameters, the encoder's fingerprint.
        prepare: called with all examples when the store has no result; returns what finds a block's negatives.
        wanted: negatives per query, of which a shortfall is counted.

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
        tally = Tally(wanted)
        with pa.OSFile(str(folder / "rows.arrow"), "wb") as file, pa.ipc.new_stream(file, SCHEMA) as writer:
            find = prepare(examples)
            for number, block in enumerate(examples.blocks()):
                negatives = find(block, number)
                writer.write_batch(training_rows(block, negatives, miner))
                tally.add(block, negatives)
        write_text(folder / "facts.json", json.dumps(tally.facts()))

    folder = store.entry("negatives", full_key, build, version=VERSION)
    facts = {
        "miner": miner,
        "wanted": wanted,
        "queries": len(examples),
        "positives": len(examples.positives.values),
        "judged_dropped": examples.dropped,
        **json.loads((folder / "facts.json").read_text(encoding="utf-8")),
    }
    log.info(_summary(facts, wanted))
    from datasets import Dataset  # takes a second to import

    rows = Dataset.from_file(str(folder / "rows.arrow"))
    if not len(rows):
        raise UserError(
            f"{miner} ranks no positive of any of the {len(examples)} training queries, and unreached=drop leaves such "
            "queries out; set unreached=keep, or a larger depth"
        )
    return TrainingSet(collection, rows, examples.relevant(), facts)


def _summary(facts: Mapping[str, Any], wanted: int) -> str:
    unused = f", {facts['judged_unused']} more are beyond miner.judged" if facts["judged_unused"] else ""
    given = f"; {facts['judged']} negatives are the data's own{unused}" if facts["judged"] or unused else ""
    short = f"; {facts['short']} queries have fewer than {wanted}" if facts["short"] else ""
    unreached = f"; no positive of {facts['unreached']} queries was found" if facts["unreached"] else ""
    dropped = f"; {facts['dropped']} are left out of training (unreached=drop)" if facts["dropped"] else ""
    found = f"mined {facts['mined']} negatives ({facts['miner']}) for {facts['queries']} training queries"
    return f"{found}{given}{short}{unreached}{dropped}"
