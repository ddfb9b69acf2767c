"""Finding negatives: documents that are close to a query without answering it.

A miner is a source of candidates, filters and sampling (`miner.py` and `mining.py` join them); miners differ in their
source alone.
"""

from embfit.miner.blend import Blend
from embfit.miner.bm25 import BM25
from embfit.miner.cross_encoder import CrossEncoder
from embfit.miner.dense import Dense
from embfit.miner.negatives_file import write_negatives
from embfit.miner.no_negatives import NoNegatives
from embfit.miner.random_documents import Random
from embfit.miner.run_file import RunFile
from embfit.miner.suspects import most_suspect
from embfit.miner.teaching import Taught

__all__ = [
    "BM25",
    "Blend",
    "CrossEncoder",
    "Dense",
    "NoNegatives",
    "Random",
    "RunFile",
    "Taught",
    "most_suspect",
    "write_negatives",
]
