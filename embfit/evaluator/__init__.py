"""Is it better? Metrics by query over the whole corpus, and paired comparisons of systems."""

from embfit.evaluator.retrieval import Retrieval

__all__ = ["Retrieval"]
