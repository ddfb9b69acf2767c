"""embfit fine-tunes text-embedding models to search your documents. You choose every step by YAML.

Start with ``python -m embfit --help``; the README shows the main job and `docs/` has one page per configuration group.
From Python, `load` opens what the command line has made.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from embfit.version import __version__

if TYPE_CHECKING:
    from embfit.bundle.retriever import Retriever

__all__ = ["__version__", "load"]


def load(path: str | Path, device: str = "auto", reranker: str | Path | None = None) -> Retriever:
    """Open a model or a bundle, which embeds texts, searches documents and reranks them.

    Args:
        path: a bundle's folder (`bundles/docs` for its champion, `bundles/docs@3` for a version), a model's folder, or
            a model's name on the Hub. A model may be an encoder or a cross-encoder.
        device: the device to compute on; `auto` is a GPU if there is one.
        reranker: a cross-encoder (a folder, or a name on the Hub), for `rerank`.

    Raises:
        UserError: the model or bundle does not exist or cannot be read.
    """
    from embfit.bundle.retriever import open_retriever  # PyTorch takes seconds to import

    return open_retriever(path, device, reranker)
