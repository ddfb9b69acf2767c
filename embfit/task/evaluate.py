"""`task=evaluate`: how good a model is on a collection, beside BM25."""

from __future__ import annotations

from embfit.evaluator import Retrieval
from embfit.model import Pretrained
from embfit.records import Report
from embfit.report import print_table, write_report
from embfit.run_folder import RunFolder
from embfit.store import Store
from embfit.task.facts import count_truncated, describe
from embfit.task.parts import Data


def evaluate(data: Data, model: Pretrained, evaluator: Retrieval, store: Store, run: RunFolder) -> Report:
    """Measure a model on the evaluator's split; nothing is trained."""
    with run.stage("load data"):
        collection = data.load(store)
    with run.stage("load model"):
        encoder = model.load()
        truncated = count_truncated(encoder, collection, store)
    with run.stage("evaluate"):
        base = evaluator.evaluate("base", encoder, collection, store)
        bm25 = [evaluator.evaluate_bm25(collection, store)] if evaluator.bm25 else []
    report = Report(
        task="evaluate",
        evaluations=[base, *bm25],
        comparisons=[found for other in bm25 for found in evaluator.compare(other, base)],
        data={**describe(collection), **truncated},
        timings=run.timings,
    )
    write_report(report, run.dir, run.config, run.origins, collection, run.command)
    print_table(report)
    print(f"report   {run.dir / 'report.html'}\nnumbers  {run.dir / 'report.json'}")
    return report
