"""`task=evaluate`: measures a model on a collection and compares it with other systems."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from embfit.compose.tasks import task
from embfit.evaluator import Retrieval
from embfit.evaluator.judging import judged_by
from embfit.model import EncoderChoice
from embfit.records import Report
from embfit.run.devices import Devices
from embfit.run.folder import RunFolder
from embfit.store import Store
from embfit.task.data_facts import count_truncated, describe, warn_of_language, warn_of_sources
from embfit.task.protocols import Data
from embfit.task.reporting import REPORT, close


@task(outputs=REPORT, spreads=True)
def evaluate(
    data: Data,
    model: EncoderChoice,
    evaluator: Retrieval,
    store: Store,
    run: RunFolder,
    devices: Devices,
    systems: Annotated[Sequence[str], Field(min_length=1)] | None = None,
    changed: Annotated[int, Field(ge=0)] = 10,
    qrels: str | None = None,
) -> Report:
    """Measure systems on the evaluator's split and compare them; nothing is trained.

    Args:
        data: the collection.
        model: the model of the system `base`.
        evaluator: measures, and knows the systems by name.
        store: keeps embeddings, indexes and rankings.
        run: the folder of this run.
        devices: all of them encode.
        systems: names of `evaluator.systems`; the others are compared with the first. None is `base`, and `bm25` if the
            evaluator reports it.
        changed: how many of the most improved, and how many of the most worsened queries are listed for
            each comparison.
        qrels: a qrels file in BEIR's or TREC's format, which replaces the split's own judgements.
    """
    names = list(dict.fromkeys(systems or (["base", "bm25"] if evaluator.bm25 else ["base"])))
    with run.stage("load data"):
        collection = data.load(store)
        if qrels is not None:
            collection = judged_by(collection, evaluator.split, Path(qrels))
        evaluator.check_splits(collection)
        warn_of_sources(collection, evaluator.splits)
    context = evaluator.context(collection, store, model, devices.all, names=names)
    truncated = {}
    if "base" in names:
        with run.stage("load model"):
            truncated = count_truncated(context.encoder, collection, store)
            warn_of_language(context.encoder, collection, store)
    with run.stage("evaluate"):
        evaluations = [context.evaluation(name) for name in names]
        users = context.on(evaluator.production) if evaluator.production else None
        production = [users.evaluation(name) for name in names] if users else []
    with run.stage("compare"):
        comparisons = evaluator.compare_all(evaluations)
        gap = evaluator.gap(evaluations, production, collection)
    report = Report(
        task="evaluate",
        evaluations=evaluations,
        comparisons=comparisons,
        data={**describe(collection), **truncated},
        timings=run.timings,
        sections={"changes": evaluator.changes(evaluations, changed), **gap},
        production=production,
    )
    return close(report, run, collection)
