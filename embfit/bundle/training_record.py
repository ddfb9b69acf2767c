"""What a bundle's versions record about an encoder's training: its pairs, and the documents that it was trained on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from embfit.bundle.manifest import FILE, Manifest, read_manifest
from embfit.bundle.opening import MODEL
from embfit.bundle.seen_documents import SeenDocuments
from embfit.bundle.vector_reuse import EarlierVersion
from embfit.bundle.versions import BundleVersions
from embfit.errors import UserError
from embfit.model import Encoder


def recorded_pairs(versions: BundleVersions, encoder: Encoder) -> str:
    """Return the digest of the encoder's training pairs; empty if no version with the same encoder records it."""
    return next((manifest.trained_on for _, manifest in _with_encoder(versions, encoder) if manifest.trained_on), "")


def recorded_documents(
    versions: BundleVersions, encoder: Encoder, earlier: EarlierVersion | None
) -> SeenDocuments | None:
    """Return the documents that the encoder was trained on; None if no version with the same encoder records them.

    Args:
        versions: the versions of the bundle.
        encoder: the encoder.
        earlier: the version whose vectors are reused, which has the same encoder.
    """
    folders = {folder for folder, _ in _with_encoder(versions, encoder)}
    if earlier is not None:
        folders.add(versions.folder / str(earlier.number))
    seen = SeenDocuments.of(())
    for folder in folders:
        seen |= SeenDocuments.read(folder)
    return seen or None


def _with_encoder(versions: BundleVersions, encoder: Encoder) -> Iterator[tuple[Path, Manifest]]:
    """Yield the versions with the same encoder: the one that it was loaded from, then the bundle's, newest first.

    The first has the same weights, even if they are computed with another back end or precision now.
    """
    loaded_from = Path(encoder.source).absolute()
    folders = [loaded_from.parent] if loaded_from.name == MODEL and (loaded_from.parent / FILE).is_file() else []
    same = (encoder.fingerprint("query"), encoder.fingerprint("document"))
    for folder in (*folders, *(versions.folder / str(number) for number in reversed(versions.numbers()))):
        try:
            manifest = read_manifest(folder)
        except UserError:
            continue  # damaged: `find_earlier` warns about it
        if folder in folders or (manifest.model.query, manifest.model.document) == same:
            yield folder, manifest
