"""Makes a new version of a bundle for `task=index` and `task=refresh`: published, measured, and the challenger."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from embfit.bundle.publishing import Contents, Published, find_published, publish
from embfit.bundle.seen_documents import SeenDocuments
from embfit.bundle.settings import BundleSettings
from embfit.errors import ConfigError, UserError
from embfit.evaluator.systems import EvaluationContext
from embfit.index import IndexBuilder, TokenBuilder, index_words
from embfit.index.language import language_of
from embfit.model import EncoderChoice
from embfit.run.folder import RunFolder

log = logging.getLogger(__name__)


def check_index(index: IndexBuilder, model: EncoderChoice, bundle: BundleSettings) -> None:
    """Check, before anything is read or computed, that an index suits a model, and that its server answers.

    Args:
        index: the choice of the index.
        model: will encode the documents, perhaps after a training.
        bundle: the bundle, and what goes into a version.

    Raises:
        ConfigError: the index takes candidates from BM25, which the bundle leaves out.
        UserError: the index cannot hold the model's vectors, its server does not answer, or there is no such model.
    """
    if isinstance(index, TokenBuilder) and index.candidates == "bm25" and not bundle.words:
        raise ConfigError(
            "index.candidates=bm25 needs the BM25 index beside the vectors, which bundle.words=false leaves out; set "
            "bundle.words=true, or index.candidates=centroids"
        )
    try:
        index.check(model.width(), model.single, bundle.versions.name)
    except ValueError as error:
        raise UserError(f"the documents cannot be indexed: {error}") from error


def make_version(
    bundle: BundleSettings,
    index: IndexBuilder,
    contexts: Sequence[EvaluationContext],
    run: RunFolder,
    trained_dims: Sequence[int],
    trained_on: str = "",
    seen: SeenDocuments | None = None,
) -> Published:
    """Encode and index a collection's documents, publish them with the model, and point `challenger` to the version.

    A run that was interrupted after it had published resumes with that version.

    Args:
        bundle: the bundle, and what goes into a version.
        index: how documents are searched.
        contexts: the splits that the version is measured on, with the collection and the encoder.
        run: the folder of the run.
        trained_dims: dimensions that the model was trained to be cut to, which `bundle.dims` overrides.
        trained_on: identifies the training pairs of the model; empty uses the record of an earlier version of it.
        seen: documents that the model was trained on; None uses the record of an earlier version of the model.

    Raises:
        UserError: there are no documents, or one cannot be encoded or indexed.
    """
    first = contexts[0]
    words = None
    if bundle.words:
        with run.stage("index words"):
            language = language_of(first.judging.language, first.collection, first.store, "evaluator.language=auto")
            words = index_words(first.collection, first.store, language)
    with run.stage("make version"):
        dims = trained_dims if bundle.dims is None else bundle.dims
        made = Contents(
            first.encoder, first.collection, index, words, bundle.texts, dims, str(run.dir), trained_on, seen
        )
        published = find_published(bundle.versions, made, contexts) if run.resuming else None
        if published is None:
            published = publish(bundle.versions, made, contexts, first.store)
        else:
            log.info("%s was published before the interruption", published.manifest.label)
    with bundle.versions.changing():
        bundle.versions.point({"challenger": published.manifest.version})
    return published
