"""Encoders on transformers: pooling, prompts, checkpoint layout, and the engine that turns texts into vectors."""

from embfit.model.embed import embed, tokenized
from embfit.model.encoder import Encoder, Kind
from embfit.model.folder import Settings, save_encoder
from embfit.model.lora import LoRA
from embfit.model.pretrained import Pretrained

__all__ = ["Encoder", "Kind", "LoRA", "Pretrained", "Settings", "embed", "save_encoder", "tokenized"]
