"""Finding negatives: documents that are close to a query without answering it.

A miner combines a source of candidates, filters and sampling; `miner.py` and `mining.py` join the three. Miners differ
only in their source.
"""

from embfit.miner.blend import BlendMiner
from embfit.miner.bm25 import BM25Miner
from embfit.miner.closest_examples import closest_examples
from embfit.miner.cross_encoder import CrossEncoderMiner
from embfit.miner.dense import DenseMiner
from embfit.miner.hybrid import HybridMiner
from embfit.miner.negatives_file import write_negatives
from embfit.miner.no_negatives import NoNegatives
from embfit.miner.random_documents import RandomMiner
from embfit.miner.run_file import RunFileMiner
from embfit.miner.scored import ScoredMiner

__all__ = [
    "BM25Miner",
    "BlendMiner",
    "CrossEncoderMiner",
    "DenseMiner",
    "HybridMiner",
    "NoNegatives",
    "RandomMiner",
    "RunFileMiner",
    "ScoredMiner",
    "closest_examples",
    "write_negatives",
]
