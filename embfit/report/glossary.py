"""What the page's words mean, for readers who do not measure retrieval every day."""

from __future__ import annotations

from collections.abc import Mapping

METRICS: Mapping[str, str] = {
    "ndcg": (
        "how high the relevant documents are among the first k: 1 if they all come first, 0 if none is there. A "
        "document counts less the further down it is, and more if its grade is higher."
    ),
    "mrr": "1 / place of the first relevant document among the first k: 1 if it comes first, 0.5 if second, 0 if none.",
    "recall": "the share of a query's relevant documents that are among the first k.",
    "precision": "the share of the first k that are relevant.",
    "map": "the precision at the place of each relevant document among the first k, averaged.",
    "success": "the share of queries with a relevant document among the first k.",
}
MEANINGS: Mapping[str, str] = {
    "95 % interval": (
        "the differences that these queries allow. Of 100 such intervals from other queries of the same kind, 95 "
        "contain the true difference. If 0 is in it, there may be no difference."
    ),
    "p": (
        "how often chance alone would give a difference as large if the two systems were equal. Below 0.05, a "
        "difference is called significant here."
    ),
    "p, corrected": "p, raised because several systems were compared, and one of many may look different by chance.",
    "seen": (
        "queries with a relevant document that is relevant to a training query too. Their gain may come from "
        "remembering documents."
    ),
    "near-copy": "queries for which training saw a relevant document, or the query, in nearly the same words.",
    "unseen": "all other queries. Their gain is what to expect for documents that come later.",
}


def definition(metric: str) -> str:
    """Say what a metric measures (`ndcg@10`), with its number of documents in place of k; empty if it is not known."""
    name, _, cutoff = metric.partition("@")
    return METRICS.get(name, "").replace("first k", f"first {cutoff}" if cutoff else "ranked documents")
