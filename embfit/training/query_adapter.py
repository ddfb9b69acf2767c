"""Trains a query adapter on vectors that are computed once, so that an epoch costs a few matrix products."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from embfit.evaluator.metrics import VALIDATION_METRIC
from embfit.model import BiEncoder, embed
from embfit.model.query_adapter import LowRankMap, QueryAdapterSettings, as_projection
from embfit.progress import progress
from embfit.records import DevQuality, TrainingSet
from embfit.store import Store
from embfit.training.batch_words import batch_words
from embfit.training.batches import EpochBatches, ExampleArrays
from embfit.training.fit.plan import Fit
from embfit.training.step.loss_parts import loss_parts
from embfit.training.step.memory import GIGABYTE, peak_bytes
from embfit.training.training import Training, check_teacher
from embfit.vectors import Vectors

log = logging.getLogger(__name__)

Change = Callable[[np.ndarray], np.ndarray]
"""Changes queries' vectors, [N, D] → [N, D]."""


def fit_query_adapter(
    encoder: BiEncoder,
    loss: nn.Module,
    training_set: TrainingSet,
    settings: QueryAdapterSettings,
    training: Training,
    measure: Callable[[Change], DevQuality] | None,
    store: Store,
) -> Fit:
    """Train a linear map of the query vectors and add it to an encoder, whose weights stay as they are.

    If the encoder has an adapter already, the new map is applied after it. The map of the epoch with
    the highest nDCG@10 on dev is kept, or the identity if none is better.

    Args:
        encoder: embeds the texts; has the adapter on return.
        loss: is called on vectors and relations.
        training_set: what the miner made.
        settings: rank, learning rate and epochs.
        training: its batch size, batching, positives per query, seed and rate of the loss's own weights are used.
        measure: measures the dev split with queries' vectors changed; without it the last epoch's map is kept.
        store: keeps the vectors of queries and documents.

    Raises:
        UserError: the loss learns from a teacher's scores, and there are none.
    """
    collection = training_set.collection
    queries = torch.from_numpy(np.array(embed(encoder, collection, "query", store).vectors.rows))  # [Q, D]
    documents = embed(encoder, collection, "document", store).vectors.rows  # [N, D], memory-mapped
    examples = ExampleArrays(training_set, training.max_positives)
    check_teacher(loss, examples)
    words = batch_words(loss, training_set, store)
    grouping = training.grouping(encoder, examples, training_set, training.batch_size, store)
    adapter = LowRankMap(encoder.width, int(settings.rank or 0), torch.Generator().manual_seed(training.seed))
    own = [weight for weight in loss.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": list(adapter.parameters()), "lr": settings.lr},
            *([{"params": own, "lr": training.loss_lr}] if own else []),
        ],
        weight_decay=0.0,  # no decay: it would pull the map back to the identity
    )
    started = time.monotonic()
    history = [_measured(0, measure, adapter)] if measure else []
    kept, kept_step = adapter.matrix(), 0
    curve: list[dict[str, float]] = []
    pairs = step = 0
    validating = 0.0
    with progress("training the query adapter", settings.epochs, "epochs") as advance:
        for epoch in range(settings.epochs):
            total, correct, positives = 0.0, 0, 0
            batches = EpochBatches(examples, grouping, training.seed, epoch)
            for batch in (batches[row] for row in range(len(batches))):
                batch = batch if words is None else words.scored(batch)
                vectors = Vectors(functional.normalize(adapter(queries[batch.queries]), dim=-1))
                read = Vectors(torch.from_numpy(np.asarray(documents[batch.documents], np.float32)))
                optimizer.zero_grad()
                for part in loss_parts(loss, vectors, read, batch.relations):
                    torch.autograd.backward(part.loss)
                    total += float(part.loss.detach())
                    correct += int(part.correct)
                positives += int(batch.relations.positives.sum())
                optimizer.step()
                pairs += batch.pairs
                step += 1
            means = {"loss": total / len(batches), "accuracy": correct / positives}
            curve.append({"step": step, **means, "lr": settings.lr})
            if measure is not None:
                before = time.monotonic()
                history.append(_measured(step, measure, adapter))
                validating += time.monotonic() - before
            if measure is None or history[-1][VALIDATION_METRIC] > max(one[VALIDATION_METRIC] for one in history[:-1]):
                kept, kept_step = adapter.matrix(), step
            advance(1)
    _put(encoder, kept)
    seconds = time.monotonic() - started - validating
    return Fit(
        steps=step,
        epochs=float(settings.epochs),
        kept_step=kept_step,
        history=history,
        dev_change=None,
        curve=curve,
        stopped="finished",
        seconds=seconds,
        validation_seconds=validating,
        pairs_per_second=pairs / max(seconds, 1e-9),
        peak_memory_gb=peak_bytes(torch.device("cpu")) / GIGABYTE,  # the map is trained there
    )


def _measured(step: int, measure: Callable[[Change], DevQuality], adapter: LowRankMap) -> dict[str, float]:
    @torch.no_grad()
    def change(vectors: np.ndarray) -> np.ndarray:
        mapped: np.ndarray = functional.normalize(adapter(torch.from_numpy(vectors)), dim=-1).numpy()
        return mapped

    quality = measure(change)
    log.info("step %d: dev %s %.4f", step, VALIDATION_METRIC, quality.metrics[VALIDATION_METRIC])
    return {"step": step, **quality.metrics}


def _put(encoder: BiEncoder, matrix: Tensor) -> None:
    """Add a map to an encoder's query side, after the one that it has."""
    if encoder.query_adapter is not None:
        matrix = encoder.query_adapter.linear.weight.detach().T.cpu() @ matrix
    encoder.query_adapter = as_projection(matrix).to(encoder.device).eval()
