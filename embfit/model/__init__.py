"""Encoders and cross-encoders on transformers: reading text, computing, loading and saving."""

from embfit.model.auto_encoder import encoder_at
from embfit.model.bi_encoder import BiEncoder
from embfit.model.cross_encoder import CrossEncoder
from embfit.model.embed import embed, tokenized, tokenized_for_pairs
from embfit.model.encoder import Encoder, Kind
from embfit.model.encoder_choice import EncoderChoice
from embfit.model.encoder_teacher import EncoderTeacher
from embfit.model.fingerprint import frozen
from embfit.model.late_interaction import LateInteractionEncoder
from embfit.model.late_interaction_choice import LateInteraction
from embfit.model.lora import LoRA
from embfit.model.pretrained import Pretrained
from embfit.model.pretrained_cross_encoder import PretrainedCrossEncoder
from embfit.model.query_adapter import QueryAdapterSettings
from embfit.model.saving import save_cross_encoder, save_encoder
from embfit.model.scoring import score_pairs
from embfit.model.settings import LateInteractionSettings, PairSettings, Settings
from embfit.model.teacher import Teacher, load_teacher

__all__ = [
    "BiEncoder",
    "CrossEncoder",
    "Encoder",
    "EncoderChoice",
    "EncoderTeacher",
    "Kind",
    "LateInteraction",
    "LateInteractionEncoder",
    "LateInteractionSettings",
    "LoRA",
    "PairSettings",
    "Pretrained",
    "PretrainedCrossEncoder",
    "QueryAdapterSettings",
    "Settings",
    "Teacher",
    "embed",
    "encoder_at",
    "frozen",
    "load_teacher",
    "save_cross_encoder",
    "save_encoder",
    "score_pairs",
    "tokenized",
    "tokenized_for_pairs",
]
