"""`embfit doctor --memory`: the memory that a training step would take of each GPU, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from embfit.compose.build import make
from embfit.errors import UserError

GB = 1e9


def training_memory(values: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield what a training step takes of each GPU: its name, gigabytes, and what it is of.

    Args:
        values: a run's, composed and checked.

    Raises:
        UserError: as `estimate_memory`, or the training is of another kind.
    """
    from embfit.training import Training
    from embfit.training.memory_estimate import estimate_memory

    training = make(values.get("training"), "training")
    if not isinstance(training, Training):
        raise UserError("memory is estimated for training=in-batch, of models with one vector a text")
    ranks = _ranks(values["trainer"])
    negatives = _negatives(values.get("miner"))
    sharded = ranks > 1 and values["trainer"].get("strategy") == "fsdp"
    model, loss = make(values["model"], "model"), make(values["loss"], "loss")
    found = estimate_memory(model, training, loss, ranks, negatives, sharded)
    micro_batch = f"{found.texts} texts of {found.length} tokens"
    own = training.gradient_checkpointing
    queries = training.batch_size * ranks
    share = f"one of {ranks} shards of " if sharded else ""
    exchange = [("sum over ranks", found.exchange, f"of {ranks}, at most 2^26 weights at a time")]
    between: list[tuple[str, int, str]] = []
    if sharded:
        exchange = [
            ("gathered weights", found.gathered, "of the largest layer or embeddings twice, as the next is on its way"),
            ("their gradients", found.reduced, "before they are sharded, and the copy in which ranks sum them"),
        ]
        between = [("the full model", found.full_model, "between steps, on GPUs that encode; the first one validates")]
    least = "with one micro-batch's graph; training keeps more where there is room"
    if found.least > found.step:
        least = f"on GPUs that encode; {found.step / GB:.3f} GB on the others, with one micro-batch's graph"
    for name, amount, of in (
        ("weights", found.weights, f"{share}{found.parameters:,} weights ({values['model']['dtype']})"),
        ("gradients", found.gradients, f"{share}{found.trained:,} that are trained"),
        ("AdamW's moments", found.moments, f"{share}two of each trained weight"),
        *exchange,
        ("a micro-batch", found.graph, micro_batch + (", without training.gradient_checkpointing" if own else "")),
        (
            "  layers computed again",
            found.checkpointed,
            f"training.gradient_checkpointing={'true' if own else 'true would'}",
        ),
        ("vectors", found.vectors, f"{queries:,} queries, {negatives + 1} documents each"),
        ("loss", found.loss, "of the largest block of queries"),
        ("labels and masks", found.relations, "of every query with every document, and the scores that the loss reads"),
        *between,
        ("at least", found.least, least),
    ):
        yield name, f"{amount / GB:9.3f} GB", of


def _negatives(miner: Mapping[str, Any] | None) -> int:
    """Return how many negatives of a query a miner's settings ask for, or those of the miner within it."""
    if miner is None:
        return 0
    own = miner.get("negatives")
    return _negatives(miner.get("miner")) if own is None else int(own)


def _ranks(trainer: Mapping[str, Any]) -> int:
    """Return how many processes a Trainer's settings ask for, whether their devices are here or not."""
    import torch

    asked = trainer.get("devices", 1)
    if isinstance(asked, list | tuple):
        devices = len(asked)
    else:
        devices = int(asked) if str(asked).isdigit() else max(1, torch.cuda.device_count())
    return devices * int(trainer.get("num_nodes", 1))
