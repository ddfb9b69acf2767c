"""`task=mine`: writes hard negatives to files, for people and for other trainers, and estimates their quality."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from embfit.compose.tasks import task
from embfit.errors import UserError
from embfit.miner import closest_examples, write_negatives
from embfit.miner.export_formats import ExportFormat
from embfit.miner.false_negative_estimate import estimate
from embfit.model import Encoder, EncoderChoice
from embfit.records import Collection, Report, Seed
from embfit.run.devices import Devices
from embfit.run.folder import RunFolder
from embfit.store import Store
from embfit.task.data_facts import describe
from embfit.task.protocols import Data, Miner
from embfit.task.reporting import REPORT, close

log = logging.getLogger(__name__)


@task(outputs=(*REPORT, "negatives.jsonl", "negatives.parquet"), spreads=True)
def mine(
    data: Data,
    model: EncoderChoice,
    miner: Miner,
    store: Store,
    run: RunFolder,
    devices: Devices,
    seed: Seed,
    hidden_share: Annotated[float, Field(gt=0, lt=1)] | None = 0.5,
    examples: Annotated[int, Field(ge=0)] = 20,
    format: ExportFormat = "records",
) -> Report:
    """Mine negatives for the training split, write them with texts, scores and ranks, and report on them.

    Args:
        data: the collection with the training split.
        model: the mining model, unless the miner names another or needs none.
        miner: mines.
        store: keeps the mined negatives.
        run: the run folder, which gets `negatives.jsonl`, `negatives.parquet` and the report.
        devices: all of them encode.
        seed: draws the hidden positives.
        hidden_share: the share of positives (of queries with several) that is hidden from a second mining, to see how
            many of them it mines as negatives; None skips this.
        examples: the number of examples in the report: those whose negatives score closest to a positive.
        format: the format of the files: `records` has texts, scores, ranks and sources; the others are for other
            trainers.
    """
    with run.stage("load data"):
        collection = data.load(store)
    with run.stage("load model"):
        encoder = model.load(*devices.all, store=store)
    with run.stage("mine negatives"):
        training_set = miner.mine(collection, encoder, store)
        lines, table = run.dir / "negatives.jsonl", run.dir / "negatives.parquet"
        if left_out := write_negatives(training_set, lines, table, format):
            log.warning("%d queries have too few negatives for task.format=%s and are not written", left_out, format)
    with run.stage("estimate false negatives"):
        hidden = {} if hidden_share is None else _false_negatives(miner, collection, encoder, store, hidden_share, seed)
    report = Report(
        task="mine",
        evaluations=[],
        comparisons=[],
        mining={**training_set.facts, **hidden, "examples": closest_examples(training_set, examples)},
        data=describe(collection),
        timings=run.timings,
    )
    return close(report, run, collection, made=[("negatives", f"{lines}, .parquet")])


def _false_negatives(
    miner: Miner, collection: Collection, encoder: Encoder, store: Store, share: float, seed: int
) -> Mapping[str, Any]:
    log.info("hiding positives and mining again, to estimate how many negatives are relevant")
    try:
        found = estimate(lambda changed: miner.mine(changed, encoder, store), collection, share, seed)
    except UserError as error:  # a run file may rank none of these queries; the mined negatives are still reported
        log.warning("false negatives are not estimated: %s", error)
        return {}
    if found.hidden:
        log.info("of %d hidden positives, %d became negatives", found.hidden, found.taken)
    else:
        log.info("no training query has several positives, so none can be hidden")
    return {"false_negatives": found.facts}
