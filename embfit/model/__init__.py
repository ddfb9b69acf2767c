"""Encoders and cross-encoders on transformers: how they read text, their folders, and the engines that run them."""

from embfit.model.cross_encoder import CrossEncoder
from embfit.model.embed import embed, tokenized, tokenized_for_pairs
from embfit.model.encoder import Encoder, Kind
from embfit.model.fingerprint import frozen
from embfit.model.lora import LoRA
from embfit.model.pretrained import Pretrained
from embfit.model.pretrained_cross_encoder import PretrainedCrossEncoder
from embfit.model.saving import save_cross_encoder, save_encoder
from embfit.model.scoring import score_pairs
from embfit.model.settings import PairSettings, Settings
from embfit.model.teacher import Teacher, load_teacher

__all__ = [
    "CrossEncoder",
    "Encoder",
    "Kind",
    "LoRA",
    "PairSettings",
    "Pretrained",
    "PretrainedCrossEncoder",
    "Settings",
    "Teacher",
    "embed",
    "frozen",
    "load_teacher",
    "save_cross_encoder",
    "save_encoder",
    "score_pairs",
    "tokenized",
    "tokenized_for_pairs",
]
