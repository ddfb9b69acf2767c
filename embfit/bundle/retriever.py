"""Models and bundles from Python: embed, search and rerank in a few lines (`embfit.load`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from embfit.bundle.documents import matching_rows
from embfit.bundle.manifest import FILE
from embfit.bundle.opening import Bundle, open_bundle
from embfit.bundle.searching import Hit, Mode, Searcher, rerank
from embfit.bundle.versions import BundleVersions, split_version
from embfit.errors import ConfigError, UserError
from embfit.index import BM25Index, ExactIndex
from embfit.model import CrossEncoder, Encoder, Pretrained, encoder_at
from embfit.model.encoder import Kind
from embfit.model.folder import holds_cross_encoder
from embfit.model.location import find_model
from embfit.records import Collection
from embfit.vectors import Vectors


@dataclass(frozen=True)
class Ranked:
    """A text that was reranked.

    Args:
        place: its place among the given texts, from 0.
        score: higher is better.
        text: the text.
    """

    place: int
    score: float
    text: str


@dataclass(frozen=True)
class Retriever:
    """A model, with the documents that it searches if there are any.

    Args:
        encoder: embeds texts; None if there is only a cross-encoder.
        ranker: reranks texts; None uses the encoder's vectors.
        searcher: searches the documents; None before `index`.
        bundle: the open version, if it was opened from a bundle.
    """

    encoder: Encoder | None = None
    ranker: CrossEncoder | None = None
    searcher: Searcher | None = None
    bundle: Bundle | None = None

    def embed(self, texts: Sequence[str], kind: Kind) -> Vectors[np.ndarray]:
        """Embed texts as queries or as documents, one vector each or, in late interaction, several.

        Raises:
            UserError: the model embeds no texts.
        """
        return self._encoder().embed(texts, kind)

    def encode(self, texts: Sequence[str], kind: Kind) -> np.ndarray:
        """Embed texts as queries or as documents, with one vector each: [N, D] float32, in the order given.

        Raises:
            UserError: the model embeds no texts, or gives several vectors for each.
        """
        return self._encoder().encode(texts, kind)

    def index(self, texts: Sequence[str], ids: Sequence[str] | None = None) -> Retriever:
        """Embed texts and return a retriever that searches them in memory.

        Args:
            texts: the documents.
            ids: their ids; by default their numbers.

        Raises:
            UserError: the model embeds no texts, there are no texts, or an id is given twice.
        """
        from datasets import Dataset  # takes a second to import

        names = [str(row) for row in range(len(texts))] if ids is None else list(ids)
        if not texts:
            raise UserError("there are no texts to index")
        if len(names) != len(texts) or len({*names}) < len(names):
            raise UserError(f"{len(texts)} texts have {len({*names})} different ids; give one each")
        corpus = Dataset.from_dict({"_id": names, "title": [""] * len(names), "text": list(texts)})
        documents = Collection("texts", corpus, Dataset.from_dict({"_id": [], "text": []}), {})
        encoder = self._encoder()
        vectors = ExactIndex(encoder.embed(texts, "document"), encoder.fingerprint("document"))
        words = BM25Index.build(texts) if any(text.strip() for text in texts) else None
        return replace(self, searcher=Searcher(encoder, vectors, documents, words), bundle=None)

    def search(
        self, query: str, k: int = 10, mode: Mode = "dense", where: Mapping[str, Any] | None = None
    ) -> list[Hit]:
        """Return the best documents of a query; arguments and errors are those of `search_all`."""
        return self.search_all([query], k, mode, where)[0]

    def search_all(
        self, queries: Sequence[str], k: int = 10, mode: Mode = "dense", where: Mapping[str, Any] | None = None
    ) -> list[list[Hit]]:
        """Return the best documents of several queries, which is faster than one after another.

        Args:
            queries: the queries.
            k: the number of documents for each.
            mode: by vectors (`dense`), by `words` (BM25), or by both (`hybrid`).
            where: metadata column → the required value, or a list of accepted values.

        Raises:
            UserError: there are no documents, a column does not exist, or there is no BM25 index.
            ValueError: k is below 1.
        """
        if self.searcher is None:
            raise UserError("there are no documents to search; load a bundle, or call index(texts) first")
        allowed = matching_rows(self.searcher.documents, where) if where else None
        return self.searcher.hits(self.searcher.search(queries, k, mode, allowed))

    def rerank(self, query: str, documents: Sequence[str], top: int | None = None) -> list[Ranked]:
        """Order texts by how well they answer a query: by the reranker, or else by the model's own vectors.

        Args:
            query: the query.
            documents: the texts.
            top: how many to return; None is all.
        """
        found = rerank(query, documents, self.ranker or self._encoder(), top)
        return [Ranked(place, score, documents[place]) for place, score in found]

    def _encoder(self) -> Encoder:
        if self.encoder is None:
            raise UserError("a cross-encoder scores pairs and embeds no text; load an encoder or a bundle")
        return self.encoder


def open_retriever(path: str | Path, device: str = "auto", reranker: str | Path | None = None) -> Retriever:
    """Open a model or a bundle; arguments and errors are those of `embfit.load`."""
    ranker = None if reranker is None else CrossEncoder.load(reranker, device=device)
    folder, which = split_version(str(path))
    if _is_bundle(folder):
        bundle = open_bundle(folder, which, device)
        return Retriever(bundle.encoder, ranker, bundle.searcher, bundle)
    if holds_cross_encoder(find_model(str(path))):
        return Retriever(ranker=ranker or CrossEncoder.load(path, device=device))
    return Retriever(encoder_at(str(path), Pretrained(str(path))).load(device), ranker)


def _is_bundle(folder: Path) -> bool:
    """Return whether a folder is a bundle's, or a version's."""
    try:
        return (folder / FILE).is_file() or bool(BundleVersions(folder.parent, folder.name).numbers())
    except ConfigError:
        return False  # no bundle has such a name
