"""`task=mine`: hard negatives as a file that a person can read and any trainer can use."""

from __future__ import annotations

from embfit.miner import write_negatives
from embfit.model import Pretrained
from embfit.records import Report
from embfit.report import write_report
from embfit.run_folder import RunFolder
from embfit.store import Store
from embfit.task.facts import describe
from embfit.task.parts import Data, Miner


def mine(data: Data, model: Pretrained, miner: Miner, store: Store, run: RunFolder) -> Report:
    """Mine negatives for the training split and write them with their texts, scores and ranks."""
    with run.stage("load data"):
        collection = data.load(store)
    with run.stage("load model"):
        encoder = model.load()
    with run.stage("mine negatives"):
        training_set = miner.mine(collection, encoder, store)
        write_negatives(training_set, run.dir / "negatives.jsonl")
    report = Report(
        task="mine",
        evaluations=[],
        comparisons=[],
        mining=training_set.facts,
        data=describe(collection),
        timings=run.timings,
    )
    write_report(report, run.dir, run.config, run.origins, collection, run.command)
    print(f"negatives  {run.dir / 'negatives.jsonl'}\nreport     {run.dir / 'report.html'}")
    return report
