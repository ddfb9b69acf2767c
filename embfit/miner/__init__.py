"""Finding negatives: documents that are close to a query without answering it.

A miner is a source of candidates, filters and sampling (`miner.py` and `mining.py` join them); miners differ in their
source alone.
"""

from embfit.miner.blend import BlendMiner
from embfit.miner.bm25 import BM25Miner
from embfit.miner.cross_encoder import CrossEncoderMiner
from embfit.miner.dense import DenseMiner
from embfit.miner.negatives_file import write_negatives
from embfit.miner.no_negatives import NoNegatives
from embfit.miner.random_documents import RandomMiner
from embfit.miner.run_file import RunFileMiner
from embfit.miner.scored import ScoredMiner
from embfit.miner.suspects import most_suspect

__all__ = [
    "BM25Miner",
    "BlendMiner",
    "CrossEncoderMiner",
    "DenseMiner",
    "NoNegatives",
    "RandomMiner",
    "RunFileMiner",
    "ScoredMiner",
    "most_suspect",
    "write_negatives",
]
