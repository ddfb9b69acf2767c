"""`task=bridge`: searches the old index with a new model, until that model has encoded all documents."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from embfit.bundle import Bundle, open_bundle
from embfit.bundle.bridging import publish_bridged
from embfit.bundle.promotion import promote as promote_version
from embfit.bundle.settings import BundleSettings
from embfit.compose.tasks import task
from embfit.errors import ConfigError, UserError
from embfit.evaluator import Retrieval
from embfit.evaluator.metrics import answerable
from embfit.evaluator.systems import EvaluationContext, evaluate_encoder
from embfit.index import DatabaseIndex
from embfit.index.protocol import KeepsVectors
from embfit.model import Encoder, Kind, Pretrained, embed
from embfit.model.bridge import Bridge, bridged, fit_bridge
from embfit.model.embed import are_stored
from embfit.model.fingerprint import frozen
from embfit.records import Collection, Evaluation, Report
from embfit.run.devices import Devices
from embfit.run.folder import RunFolder
from embfit.store import Store
from embfit.task.data_facts import describe
from embfit.task.protocols import Data
from embfit.task.reporting import REPORT, close
from embfit.type_hints import ChosenBy

log = logging.getLogger(__name__)

BRIDGED = "bridge"  # the name of the new model on the old index in the report
FEW = 3  # texts for each dimension; with fewer, the map is likely to overfit
_DOCUMENT: Kind = "document"


@task(outputs=REPORT)
def bridge(
    data: Data,
    model: Annotated[Pretrained, ChosenBy("a model of one vector a text")],
    bundle: BundleSettings,
    evaluator: Retrieval,
    store: Store,
    run: RunFolder,
    devices: Devices,
    seed: int,
    version: Literal["champion", "challenger", "previous"] | Annotated[int, Field(ge=1)] = "champion",
    documents: Annotated[int, Field(ge=0)] = 2000,
    own_index: bool | None = None,
    promote: bool = False,
) -> Report:
    """Map a new model's vectors into the space of a version's index, and publish both as the bundle's next version.

    The map is fitted on the queries of the training split and on a sample of the documents, each embedded by both
    models. No document is encoded for the index.

    Args:
        data: the documents of the version, and queries that train and measure.
        model: the new model.
        bundle: the bundle of the version; gets the next version.
        evaluator: measures the version, the new model over the bridge and, if possible, on its own index.
        store: keeps vectors.
        run: the folder of this run.
        devices: all of them encode.
        seed: draws the sample and the folds.
        version: the version whose index is used further.
        documents: the largest number of documents on which the map is fitted, in addition to the queries.
        own_index: whether the new model is measured on an index of its own as well, for which it encodes all documents.
            None measures it if the store has their vectors.
        promote: whether the version becomes champion if it passes the gates.

    Raises:
        ConfigError: there is nothing to fit the map on.
        UserError: the data have other documents than the version, or a model gives several vectors for each text.
    """
    versions = bundle.versions
    with run.stage("load data"):
        collection = data.load(store)
    with run.stage("load models"):
        old = open_bundle(versions.folder, version, devices.first, store=store)
        encoder = model.load(*devices.all, store=store)
    context = evaluator.context(collection, store, model, devices.all, lambda: encoder)
    contexts = [context.on(split) for split in evaluator.splits]
    with old, frozen(encoder), frozen(old.encoder):
        _check(old, collection)
        with run.stage("embed"):
            pairs = _Pairs(old, encoder, collection, store, documents, seed)
            new_vectors, old_vectors = pairs.vectors(encoder), pairs.vectors(old.encoder)
        with run.stage("fit bridge"):
            started = time.monotonic()
            fitted = fit_bridge(new_vectors, old_vectors, seed)
            made = bridged(encoder, fitted.matrix, old.encoder.normalizes)
            seconds = time.monotonic() - started
        facts = _facts(fitted, pairs, encoder, seconds)
        judged = [one for one in contexts if answerable(collection.qrels.get(one.split, {}))]
        with run.stage("evaluate"):
            measured = [_measure(old, encoder, made, one, own_index) for one in judged]
        with run.stage("make version"):
            published = publish_bridged(versions, old, made, contexts, facts, str(run.dir), store)
    manifest = published.manifest
    with versions.changing():
        versions.point({"challenger": manifest.version})
    sentences = [_fitted(old, fitted, pairs)]
    if measured:
        sentences += _kept(measured[0], evaluator.metrics[0])
    else:
        sentences.append(f"{collection.name} has no judged queries ({evaluator.split}), so nothing is measured")
    if promote:
        with run.stage("promote"):
            promotion = promote_version(versions, manifest.version, bundle.gates)
        sentences += [result.line for result in promotion.results]
        now = "champion" if promotion.promoted else "challenger: a gate did not let it pass"
    else:
        now = f"challenger; embfit bundle promote {manifest.name} makes it champion"
    sentences.append(f"{manifest.label} is {now}")
    bundle.register()
    evaluations = measured[0] if measured else []
    others = [one for one in evaluations if one.system != BRIDGED]
    report = Report(
        task="bridge",
        evaluations=evaluations,
        comparisons=[found for other in others for found in evaluator.compare(other, evaluations[1])],
        data=describe(collection),
        timings=run.timings,
        sections={"bridge": facts, "bundle": {"name": manifest.name, "version": manifest.version}},
        production=measured[1] if len(measured) > 1 else (),
    )
    return close(report, run, collection, made=[("bundle", str(versions.path(manifest.version)))], sentences=sentences)


@dataclass(frozen=True)
class _Pairs:
    """The texts on which a map is fitted.

    Args:
        old: the version.
        new: the new model.
        collection: the collection of the texts.
        store: keeps vectors.
        documents: the largest number of documents that are drawn.
        seed: draws them.
    """

    old: Bundle
    new: Encoder
    collection: Collection
    store: Store
    documents: int
    seed: int

    def vectors(self, encoder: Encoder) -> np.ndarray:
        """Return a model's vectors of the queries, followed by those of the documents ([N, D] float32).

        Raises:
            ConfigError: there are neither queries nor documents.
        """
        parts = []
        if self.query_rows:
            parts.append(embed(encoder, self.collection, "query", self.store, self.query_rows).vectors.rows)
        if len(self.document_rows):
            parts.append(self._documents(encoder))
        if not parts:
            raise ConfigError(
                f"task.documents=0, and {self.collection.name} has no training queries, so there is nothing to fit a "
                "bridge on; raise task.documents"
            )
        return np.concatenate(parts)

    @cached_property
    def query_rows(self) -> list[int]:
        """Rows of the training queries."""
        judged = answerable(self.collection.qrels.get("train", {}))
        return sorted(self.collection.query_rows[query] for query in judged)

    @cached_property
    def document_rows(self) -> np.ndarray:
        """Rows of the drawn documents, ascending ([M] int64)."""
        drawn = np.random.default_rng(self.seed).permutation(len(self.collection.corpus))[: self.documents]
        return np.sort(drawn)

    def _documents(self, encoder: Encoder) -> np.ndarray:
        """Return the vectors of the drawn documents, from the index or the store if these have them."""
        index, rows, kind = self.old.searcher.index, self.document_rows, _DOCUMENT
        if encoder is self.old.encoder and isinstance(index, KeepsVectors):
            return index.documents.take(rows).rows
        if are_stored(encoder, self.collection, kind, self.store):
            return embed(encoder, self.collection, kind, self.store).vectors.take(rows).rows
        return embed(encoder, self.collection, kind, self.store, rows.tolist()).vectors.rows


def _check(old: Bundle, collection: Collection) -> None:
    """Raise an error if a bridge cannot lead to a version's index.

    Raises:
        UserError: its model gives several vectors for a text, its vectors are in a database, or it has other documents
            than the data.
    """
    if not old.encoder.single:
        raise UserError(
            f"{old.label} is of a late-interaction model, which gives a vector for each token; a bridge leads to one "
            "vector a text"
        )
    if isinstance(old.searcher.index, DatabaseIndex):
        raise UserError(
            f"the vectors of {old.label} are in a database, in a collection that goes with that version; a bridge "
            "takes an index that lies in the version's folder (index=auto)"
        )
    if collection.corpus_digest != old.manifest.documents.sha256:
        raise UserError(
            f"{collection.name} has {len(collection.corpus):,} documents, and {old.label} "
            f"{old.manifest.documents.count:,}, which are not all the same; use the data that it was made from, or "
            f"update it first (task=refresh task.train=never bundle.name={old.manifest.name})"
        )


def _measure(
    old: Bundle, new: Encoder, over: Encoder, context: EvaluationContext, own_index: bool | None
) -> list[Evaluation]:
    """Measure the version, the new model over the bridge and, if requested, the new model on its own index."""

    def searched(name: str, encoder: Encoder) -> Evaluation:
        vectors = encoder.embed(context.collection.query_texts(context.rows), "query")
        found = context.search.nearest(vectors, old.searcher.index)
        return context.judge(name, context.search.ranking(context.rows, found))

    found = [searched(old.label, old.encoder), searched(BRIDGED, over)]
    if are_stored(new, context.collection, _DOCUMENT, context.store) if own_index is None else own_index:
        found.append(evaluate_encoder("own index", new, context))
    return found


def _facts(fitted: Bridge, pairs: _Pairs, new: Encoder, seconds: float) -> dict[str, Any]:
    """Return the record of a bridge."""
    return {
        "model": new.source,
        "query_fingerprint": new.fingerprint("query"),
        "index_of": pairs.old.label,
        "queries": len(pairs.query_rows),
        "documents": len(pairs.document_rows),
        "width": [int(side) for side in fitted.matrix.shape],
        "penalty": fitted.penalty,
        "agreement": round(fitted.agreement, 5),
        "agreement_unmapped": None if fitted.unmapped is None else round(fitted.unmapped, 5),
        "seconds": round(seconds, 3),
    }


def _fitted(old: Bundle, fitted: Bridge, pairs: _Pairs) -> str:
    """Return a sentence on how the map was fitted."""
    width = fitted.matrix.shape[0]
    if fitted.texts < FEW * width:
        log.warning(
            "the bridge is fitted on %d texts, and the model has %d dimensions; task.documents=%d would do better",
            *(fitted.texts, width, FEW * width),
        )
    before = "" if fitted.unmapped is None else f", {fitted.unmapped:.3f} without the map"
    return (
        f"fitted on {len(pairs.query_rows):,} queries and {len(pairs.document_rows):,} documents: of texts left out, "
        f"cosine {fitted.agreement:.3f} with the vectors of {old.label}{before}"
    )


def _kept(measured: Sequence[Evaluation], metric: str) -> Sequence[str]:
    """Return a sentence on how much of the new model's gain the bridge keeps, if its own index was measured."""
    if len(measured) < 3:
        return [
            "the new model's own index is not measured, since its vectors of the documents are not in the store; "
            "task.own_index=true encodes them"
        ]
    over, own = (one.metrics[metric] for one in measured[1:])
    return [f"the bridge keeps {over / own:.1%} of the {metric} that the new model has on its own index"] if own else []
