"""Dense mining finds what sentence-transformers' `mine_hard_negatives` finds under the same settings."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
import torch
from datasets import Dataset

from embfit.miner import DenseMiner, dense
from embfit.records import Collection, Embeddings
from embfit.store import Store
from embfit.vectors import Vectors
from tests.conftest import make_collection

QUERIES, DOCUMENTS, WIDTH = 60, 300, 8


class GivenVectors:
    """A sentence-transformers model, as far as the mining asks, that looks up given vectors."""

    device = torch.device("cpu")

    def fingerprint(self, kind: str) -> str:
        return "vectors"

    def __init__(self, vectors: dict[str, np.ndarray]) -> None:
        self.vectors = vectors

    def encode_query(self, texts: list[str], **_: object) -> np.ndarray:
        return np.stack([self.vectors[text] for text in texts])

    encode_document = encode_query

    def similarity(self, first: np.ndarray, second: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(first) @ torch.as_tensor(second).T

    def similarity_pairwise(self, first: np.ndarray, second: np.ndarray) -> torch.Tensor:
        return (torch.as_tensor(first) * torch.as_tensor(second)).sum(dim=-1)


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"relative_margin": 0.05},
        {"absolute_margin": 0.1},
        {"max_score": 0.5},
        {"relative_margin": 0.2, "max_score": 0.3},
    ],
    ids=repr,
)
def test_the_same_negatives_as_sentence_transformers(
    limits: dict[str, float], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    hard_negatives = pytest.importorskip("sentence_transformers.util.hard_negatives")
    random = np.random.default_rng(0)
    queries = {f"q{row}": f"query {row}" for row in range(QUERIES)}
    documents = {f"d{row}": f"document {row}" for row in range(DOCUMENTS)}
    texts = [*queries.values(), *documents.values()]
    vectors = random.standard_normal((len(texts), WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    model = GivenVectors(dict(zip(texts, vectors, strict=True)))
    nearest = np.argsort(-vectors[:QUERIES] @ vectors[QUERIES:].T, axis=1)  # positives from near to far, 1 to 3 each
    qrels = {
        query: {f"d{nearest[row, 12 * place + row % 9]}": 1 for place in range(1 + row % 3)}
        for row, query in enumerate(queries)
    }
    collection = make_collection(documents, queries, {"train": qrels})

    def embed(
        model: GivenVectors, collection: Collection, kind: str, store: Store, rows: list[int] | None = None
    ) -> Embeddings:
        texts = collection.query_texts(rows) if kind == "query" else collection.document_texts(rows)
        return Embeddings(Vectors(model.encode_query(list(texts))), "vectors")

    monkeypatch.setattr(dense, "embed", embed)
    miner = DenseMiner(negatives=5, depth=100, **{"relative_margin": None, **limits})
    rows = miner.mine(collection, model, store).rows  # type: ignore[arg-type]
    ours = {
        f"query {row['query']}": [f"document {document}" for document in row["negatives"]]
        for row in rows
        if row["negatives"]
    }

    pairs = [(queries[query], documents[document]) for query, judged in qrels.items() for document in judged]
    mined = hard_negatives.mine_hard_negatives(
        Dataset.from_dict({"query": [query for query, _ in pairs], "positive": [text for _, text in pairs]}),
        model,
        corpus=list(documents.values()),
        num_negatives=5,
        range_max=97,  # it looks at as many more documents as a query has positives, 3
        output_format="triplet",
        verbose=False,
        **limits,
    )
    theirs: dict[str, list[str]] = defaultdict(list)
    for row in mined:
        if row["negative"] not in theirs[row["query"]]:  # once for each positive
            theirs[row["query"]].append(row["negative"])
    assert ours == theirs
    assert sum(map(len, ours.values())) > 100
