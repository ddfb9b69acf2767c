"""Bundles: a model, the index of its document vectors and the documents, published together as one numbered version."""

from embfit.bundle.manifest import Manifest, read_manifest, verify
from embfit.bundle.opening import Bundle, open_bundle
from embfit.bundle.versions import BundleVersions

__all__ = ["Bundle", "BundleVersions", "Manifest", "open_bundle", "read_manifest", "verify"]
