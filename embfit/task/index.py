"""`task=index`: publishes documents and a model as a version of a bundle that can be served."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

from embfit.bundle.promotion import promote as promote_version
from embfit.bundle.settings import BundleSettings
from embfit.compose.tasks import task
from embfit.evaluator import Retrieval
from embfit.index import IndexBuilder
from embfit.model import EncoderChoice
from embfit.records import Report
from embfit.run.devices import Devices
from embfit.run.folder import RunFolder
from embfit.store import Store
from embfit.task.bundle_version import check_index, make_version
from embfit.task.data_facts import describe
from embfit.task.protocols import Data
from embfit.task.reporting import REPORT, close
from embfit.task.trained_dims import trained_dims

log = logging.getLogger(__name__)


@task(outputs=REPORT, spreads=True)
def index(
    data: Data,
    model: EncoderChoice,
    index: IndexBuilder,
    bundle: BundleSettings,
    evaluator: Retrieval,
    store: Store,
    run: RunFolder,
    devices: Devices,
    promote: bool = False,
) -> Report:
    """Encode the documents, index them and publish model, index and documents as the next version of a bundle.

    The first version becomes champion, if it passes the gates; a later one becomes challenger, unless it is promoted.

    Args:
        data: the documents, and judgements if there are any.
        model: encodes the documents, and later the queries.
        index: the kind of index.
        bundle: the bundle, and the contents of a version.
        evaluator: names the split on which the version is measured.
        store: keeps the vectors, so that an interrupted run can resume.
        run: the folder of this run.
        devices: all of them encode.
        promote: whether the version becomes champion if it passes the gates.
    """
    versions = bundle.versions
    check_index(index, model, bundle)
    with run.stage("load data"):
        collection = data.load(store)
    with run.stage("load model"):
        encoder = model.load(*devices.all, store=store)
        dims = trained_dims(Path(encoder.source), encoder.width, encoder.single)
    context = evaluator.context(collection, store, model, devices.all, lambda: encoder)
    published = make_version(bundle, index, [context.on(split) for split in evaluator.splits], run, dims)
    manifest = published.manifest
    sentences = []
    if promote or versions.pointer("champion") is None:
        with run.stage("promote"):
            promotion = promote_version(versions, manifest.version, bundle.gates)
        sentences = [found.line for found in promotion.results]
        sentences.append(
            f"{manifest.label} is {'champion' if promotion.promoted else 'challenger: a gate did not let it pass'}"
        )
    else:
        sentences.append(f"{manifest.label} is challenger; embfit bundle promote {manifest.name} makes it champion")
    bundle.register()
    evaluations = list(published.measured.evaluations)
    report = Report(
        task="index",
        evaluations=evaluations[:1],
        comparisons=[],
        data=describe(collection),
        timings=run.timings,
        production=evaluations[1:],
        sections={"bundle": {"name": manifest.name, "version": manifest.version, **asdict(manifest.index)}},
    )
    return close(report, run, collection, made=[("bundle", str(versions.path(manifest.version)))], sentences=sentences)
