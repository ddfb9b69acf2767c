"""Losses: small modules called on embeddings, labels and masks. They know no model, no tokenizer and no rank."""

from embfit.loss.distillation import KL, Distillation, MarginMSE
from embfit.loss.info_nce import InfoNCE
from embfit.loss.matryoshka import Matryoshka
from embfit.loss.ranking import Binary, Listwise
from embfit.loss.relations import Relations

__all__ = ["KL", "Binary", "Distillation", "InfoNCE", "Listwise", "MarginMSE", "Matryoshka", "Relations"]
