"""Synthetic queries: written by a language model, or taken from the documents, then filtered.

A generator plans what is asked about each document (`plan.py`), asks for it (`asking.py`, on the record of
`journal.py`), and gives what came (`generated.py`). Filters mark what is unfit (`filters.py`), and `dataset.py` writes
what is left as a collection to train on.
"""

from embfit.generator.api import ApiGenerator
from embfit.generator.budget import Budget, Price
from embfit.generator.documents import DocumentChoice
from embfit.generator.extractive import ExtractiveGenerator
from embfit.generator.filters import Filters
from embfit.generator.judge import Judge
from embfit.generator.local import LocalGenerator
from embfit.generator.no_generator import NoGenerator
from embfit.generator.source_ranking import CrossEncoderFilter
from embfit.generator.trained import TrainedGenerator

__all__ = [
    "ApiGenerator",
    "Budget",
    "CrossEncoderFilter",
    "DocumentChoice",
    "ExtractiveGenerator",
    "Filters",
    "Judge",
    "LocalGenerator",
    "NoGenerator",
    "Price",
    "TrainedGenerator",
]
