"""Synthetic queries: written by a language model, or taken from the documents, then filtered.

A generator plans the requests for each document (`plan.py`), sends them (`asking.py`) or writes the queries itself
(`local_writing.py`), and records every request in a journal (`journal.py`). Filters mark unfit queries (`filters.py`),
and `dataset.py` writes the others as a collection to train on.
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
