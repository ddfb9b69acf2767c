"""What `training.py` measures: embfit and sentence-transformers trained on the same pairs, and what that takes.

Libraries are imported where they are used, so that no system's peak memory has the other's.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

EMBFIT, FP32, BF16, CACHED = "embfit", "peer fp32", "peer bf16", "peer cached"
PEERS = (FP32, BF16, CACHED)
WORDS = 10  # of a made query
DIMS = (64, 128, 256, 384)


@dataclass(frozen=True)
class Case:
    """One way to train.

    Args:
        study: that it belongs to.
        system: `embfit`, or sentence-transformers as `peer fp32`, `peer bf16` or `peer cached`.
        pairs: (query, document) pairs, each once an epoch; None takes all.
        batch_size: pairs in a batch.
        queries: of each document, made from its words where there are fewer.
        negatives: of each pair, any documents: what they cost does not depend on which.
        max_length: tokens read of a text.
        loss: `infonce` or `mrl`.
        memory_gb: of embfit, for kept graphs.
        quality: whether nDCG@10 is measured afterwards, on queries held out of training by document.
    """

    study: str
    system: str
    pairs: int | None = 640
    batch_size: int = 128
    queries: int = 1
    negatives: int = 0
    max_length: int = 256
    loss: str = "infonce"
    memory_gb: float | None = None
    quality: bool = False


Texts = list[tuple[str, str, list[str]]]
"""(query, document, negatives) of each pair."""


def computes_in_bf16(system: str) -> bool:
    """Say whether a system computes in bf16: a peer as its name says, embfit where the hardware multiplies it."""
    import torch

    from embfit.model.precision import uses_bf16

    return system == BF16 or (system == EMBFIT and uses_bf16("auto", torch.device("cpu")))


def draw(collection: Any, case: Case, seed: int) -> Texts:
    """Return a case's pairs: the same for every system."""
    import numpy as np

    generator = np.random.default_rng(seed)
    documents = list(collection.document_texts())
    queries = list(collection.query_texts())
    judged = [
        (queries[collection.query_rows[query]], collection.document_rows[document])
        for query, grades in collection.qrels["train"].items()
        for document, grade in grades.items()
        if grade >= 1
    ]
    pairs = [judged[place] for place in generator.permutation(len(judged))]
    if case.queries > 1:
        asked: dict[int, list[str]] = {}
        for query, row in pairs:
            asked.setdefault(row, []).append(query)
        pairs = [(query, row) for row in asked for query in _more(asked[row], documents[row], case.queries, generator)]
    pairs = pairs[: case.pairs]
    away = generator.integers(1, len(documents), size=(len(pairs), case.negatives))  # rows from the pair's document on
    return [
        (query, documents[row], [documents[(row + distance) % len(documents)] for distance in distances])
        for (query, row), distances in zip(pairs, away, strict=True)
    ]


def _more(queries: list[str], document: str, count: int, generator: Any) -> list[str]:
    """Return so many queries of a document: those judged, and then some of its words."""
    words = document.split()
    starts = generator.integers(max(1, len(words) - WORDS), size=count)
    return [*queries, *(" ".join(words[start : start + WORDS]) for start in starts)][:count]


def train_embfit(case: Case, texts: Texts, folder: Path, seed: int) -> dict[str, Any]:
    """Train with embfit, tokenising included."""
    from dataclasses import replace
    from functools import partial

    import pytorch_lightning as pl
    from minilm import MODEL

    from embfit.loss import InfoNCE, Matryoshka
    from embfit.model import save_encoder
    from embfit.store import Store
    from embfit.training import Training

    encoder = replace(MODEL, max_length=case.max_length).load("cpu")
    training = Training(
        epochs=1,
        batch_size=case.batch_size,
        batching="by_document" if case.queries > 1 else "random",
        memory_gb=case.memory_gb,
        seed=seed,
    )
    loss = Matryoshka(InfoNCE()) if case.loss == "mrl" else InfoNCE()
    trainer = partial(pl.Trainer, accelerator="cpu", devices=1, logger=False)
    examples = training_set(texts)
    started, cpu = time.monotonic(), time.process_time()
    training.fit(encoder, loss, examples, None, trainer, Store(enabled=False), folder)
    cost = {"seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - cpu}
    if case.quality:
        save_encoder(encoder, folder / "model")
    return cost


def training_set(texts: Texts) -> Any:
    """Return pairs as embfit's training set."""
    from datasets import Dataset

    from embfit.records import Collection, TrainingSet

    rows: dict[str, int] = {}
    for _, document, negatives in texts:
        for text in (document, *negatives):
            rows.setdefault(text, len(rows))
    corpus = Dataset.from_dict(
        {"_id": [f"d{row}" for row in rows.values()], "title": [""] * len(rows), "text": [*rows]}
    )
    queries = Dataset.from_dict({"_id": [f"q{row}" for row in range(len(texts))], "text": [text[0] for text in texts]})
    examples: list[dict[str, Any]] = [
        {
            "query": row,
            "positives": [rows[document]],
            "negatives": [rows[text] for text in negatives],
            "scores": [],
            "weight": 1.0,
            "source": "benchmark",
        }
        for row, (_, document, negatives) in enumerate(texts)
    ]
    relevant = {row["query"]: frozenset(row["positives"]) for row in examples}
    return TrainingSet(Collection("benchmark", corpus, queries, {}), Dataset.from_list(examples), relevant)


def train_peer(case: Case, texts: Texts, folder: Path, seed: int) -> dict[str, Any]:
    """Train with sentence-transformers, tokenising included."""
    from datasets import Dataset
    from peer_training import PeerTraining

    training = PeerTraining(
        epochs=1,
        batch_size=case.batch_size,
        max_length=case.max_length,
        bf16=computes_in_bf16(case.system),
        seed=seed,
        cached=case.system == CACHED,
        dims=DIMS if case.loss == "mrl" else (),
    )
    model = training.load()
    columns = ["anchor", "positive", *(f"negative_{place}" for place in range(case.negatives))]
    rows = [(query, document, *negatives) for query, document, negatives in texts]
    pairs = Dataset.from_dict(dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True)))
    started, cpu = time.monotonic(), time.process_time()
    training.fit(model, pairs, folder / "trainer")
    cost = {"seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - cpu}
    if case.quality:
        model.save(str(folder / "model"))
    return cost


def held_out(folder: Path, case: Case, collection: Any) -> dict[str, dict[str, float]]:
    """Return nDCG@10 of each held-out query by dimension, over the fold's corpus, of a saved model."""
    from embfit.evaluator import Retrieval
    from embfit.evaluator.systems import evaluate_encoder
    from embfit.model import Pretrained
    from embfit.store import Store

    model = Pretrained(path=str(folder), max_length=case.max_length)
    evaluator = Retrieval(split="fold", metrics=("ndcg@10",), depth=10, bm25=False, dims=DIMS, near_copy=None)
    found = evaluate_encoder(case.system, model.load("cpu"), evaluator.context(collection, Store(enabled=False), model))
    return {str(dim): dict(cut.per_query["ndcg@10"]) for dim, cut in found.dims.items()}


def model_flops(case: Case, texts: Texts) -> float:
    """Return what training takes: each distinct text once, without padding; backward is twice forward."""
    from dataclasses import replace

    from minilm import MODEL

    encoder = replace(MODEL, max_length=case.max_length).load("cpu")
    distinct = {text for query, document, negatives in texts for text in (query, document, *negatives)}
    return flops_of(encoder.backbone.config, encoder.tokenize(distinct, "document").lengths)


def flops_of(config: Any, lengths: np.ndarray) -> float:
    """Return what a forward and a backward pass over texts of so many tokens take: backward is twice forward."""
    tokens = lengths.astype(float)
    layer = 4 * config.hidden_size**2 + 2 * config.hidden_size * config.intermediate_size  # weights
    attention = 2 * config.hidden_size * (tokens**2).sum()  # two products of [L, L] with [L, H]
    return float(3 * 2 * config.num_hidden_layers * (layer * tokens.sum() + attention))


def matrix_peak(bf16: bool) -> float:
    """Return the FLOP/s that one core reaches in a large matrix product, in bf16 or in fp32."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    size = 2048
    matrix = torch.randn(size, size, dtype=torch.bfloat16 if bf16 else torch.float32)
    seconds = []
    for _ in range(6):
        started = time.process_time()
        matrix @ matrix
        seconds.append(time.process_time() - started)
    torch.set_num_threads(threads)
    return 2 * size**3 / min(seconds[1:])
