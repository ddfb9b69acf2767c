"""Writes a model folder with a graph: for sentence-transformers and TEI, and for ONNX Runtime or OpenVINO.

The graph takes token ids and their mask, and gives the texts' final vectors, with the model's pooling, projection and
normalisation. Its callers must put the prompts before the texts; the manifest names the prompts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version as release
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from embfit.atomic_files import FileFacts, replacing_folder, write_text
from embfit.model.back_ends.choice import LIMITS, SHAPES, probe_batch
from embfit.model.back_ends.conversion import convert
from embfit.model.back_ends.graph import FILES, INPUTS, PACKAGES, GraphBackEnd, Run, check_installed, open_graph
from embfit.model.bi_encoder import BiEncoder
from embfit.model.saving import save_encoder
from embfit.version import __version__

VECTORS = "sentence_embedding"  # the graph's output: [N, D], under the name that Optimum and TEI use
MANIFEST = "export.json"


class TextVectors(nn.Module):
    """An encoder as a function of token ids and their mask, [N, L] each → [N, D]."""

    def __init__(self, encoder: BiEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the vectors, in fp32."""
        return self.encoder.text_vectors(input_ids, attention_mask)


def write_graph_folder(encoder: BiEncoder, folder: Path, back_end: GraphBackEnd) -> dict[str, Any]:
    """Write a model folder with the graph in `onnx/` or `openvino/` and a manifest, atomically.

    Args:
        encoder: the encoder, on a CPU and in PyTorch.
        folder: the folder, which is replaced.
        back_end: the back end of the graph.

    Returns:
        The manifest.

    Raises:
        ConfigError: the packages for converting and checking are not installed.
        UserError: the model cannot be converted, or its graph gives different vectors.
    """
    check_installed(back_end, "task.format")
    with replacing_folder(folder) as unfinished:
        save_encoder(encoder, unfinished / "model")
        for file in list((unfinished / "model").iterdir()):
            file.rename(unfinished / file.name)
        (unfinished / "model").rmdir()
        distance = write_graph(encoder, unfinished / back_end, back_end)
        manifest = {
            "graph": f"{back_end}/{FILES[back_end]}",
            **describe(encoder, distance),
            "versions": {name: release(name) for name in ("torch", "transformers", *PACKAGES[back_end])},
        }
        return write_manifest(unfinished, manifest)


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write the manifest of an export, with the size and digest of each file, and return it."""
    files = {
        str(path.relative_to(folder)): asdict(FileFacts.of(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest = {**facts, "files": files}
    write_text(folder / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    return manifest


def write_graph(encoder: BiEncoder, folder: Path, back_end: GraphBackEnd) -> float:
    """Write an encoder's graph into a folder; return its vectors' largest distance from PyTorch's, by their length.

    Raises:
        UserError: the model cannot be converted, or its graph gives other vectors.
    """
    distance = float("inf")

    def wrong(path: Path) -> str | None:
        nonlocal distance
        distance = distance_to_encoder(encoder, open_graph(back_end, "fp32", path, VECTORS))
        if distance <= LIMITS["fp32"]:
            return None
        return f"its vectors are {distance:.2g} of their length from PyTorch's, limit {LIMITS['fp32']:g}"

    convert(TextVectors(encoder), encoder.backbone, {VECTORS: {0: "batch"}}, back_end, folder, wrong)
    return distance


@torch.inference_mode()
def distance_to_encoder(encoder: BiEncoder, run: Run) -> float:
    """Return the largest distance, relative to their length, of a graph's vectors from an encoder's, on four shapes."""
    worst = 0.0
    for shape in SHAPES:
        ids, mask = probe_batch(encoder, shape)
        expected = encoder(ids, mask)
        found = torch.from_numpy(run(ids.numpy(), mask.numpy()))
        if found.shape != expected.shape or not bool(torch.isfinite(found).all()):
            return float("inf")
        worst = max(worst, float(((found - expected).norm(dim=-1) / expected.norm(dim=-1)).max()))
    return worst


def describe(encoder: BiEncoder, distance: float) -> Mapping[str, Any]:
    """Return the facts that a caller of the graph needs, as JSON values."""
    settings = encoder.settings
    return {
        "embfit": __version__,
        "source": encoder.source,
        "fingerprints": {kind: encoder.fingerprint(kind) for kind in ("query", "document")},
        "prompts": {"query": settings.query_prompt, "document": settings.document_prompt},
        "pooling": settings.pooling,
        "unit_length": settings.normalize,
        "max_length": settings.max_length,
        "padding": {"id": encoder.pad_id, "side": "left" if encoder.pads_left else "right"},
        "inputs": {name: ["batch", "length"] for name in INPUTS},
        "outputs": {VECTORS: ["batch", encoder.width]},
        "checked": {"shapes": [list(shape) for shape in SHAPES], "largest_distance": distance},
    }
