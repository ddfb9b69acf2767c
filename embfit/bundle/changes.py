"""Compares a version's documents with others, and identifies the training pairs of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from embfit.bundle.documents import read_documents
from embfit.bundle.manifest import Manifest
from embfit.evaluator.metrics import answerable
from embfit.records import Collection
from embfit.store import digest
from embfit.text_digests import CONTENT


@dataclass(frozen=True)
class DocumentChanges:
    """How documents differ from earlier ones, compared by their ids and by the text that an encoder reads.

    Args:
        added: new ids.
        removed: ids that are gone.
        changed: ids whose text has changed.
        unchanged: the number of unchanged documents.
    """

    added: Sequence[str]
    removed: Sequence[str]
    changed: Sequence[str]
    unchanged: int

    @classmethod
    def between(cls, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> DocumentChanges:
        """Compare the digests of texts by document id."""
        changed = [name for name, content in after.items() if before.get(name, content) != content]
        added = [name for name in after if name not in before]
        removed = [name for name in before if name not in after]
        return cls(added, removed, changed, len(after) - len(added) - len(changed))

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


def published_contents(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    """Return the digest of each document's text in a version, by id.

    Raises:
        UserError: the file of documents is missing or damaged.
    """
    return contents(read_documents(folder, manifest.label, manifest.documents))


def contents(collection: Collection) -> dict[str, bytes]:
    """Return the digest of each document's text, by id."""
    return dict(zip(collection.document_ids, collection.document_digests[CONTENT].to_pylist(), strict=True))


def training_digest(collection: Collection) -> str:
    """Identify the pairs of the training split by their texts and grades, whatever their ids; empty without pairs."""
    judged = answerable(collection.qrels.get("train", {}))
    if not judged:
        return ""
    known = contents(collection)
    texts = collection.query_texts([collection.query_rows[query] for query in judged])
    pairs = [
        [text, sorted([known[document].hex(), grade] for document, grade in grades.items())]
        for text, grades in zip(texts, judged.values(), strict=True)
    ]
    return digest({"pairs": sorted(pairs)})
