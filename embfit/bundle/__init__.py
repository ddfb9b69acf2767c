"""Bundles: a model, the index of its document vectors and the documents, published together as one numbered version."""

from embfit.bundle.gates import Gates
from embfit.bundle.manifest import Manifest, read_manifest, verify
from embfit.bundle.opening import Bundle, open_bundle
from embfit.bundle.searching import Hit, Searcher
from embfit.bundle.settings import BundleSettings
from embfit.bundle.versions import BundleVersions

__all__ = [
    "Bundle",
    "BundleSettings",
    "BundleVersions",
    "Gates",
    "Hit",
    "Manifest",
    "Searcher",
    "open_bundle",
    "read_manifest",
    "verify",
]
