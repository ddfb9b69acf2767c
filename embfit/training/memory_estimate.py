"""Estimates the GPU memory of a training step from the model's configuration, without weights, data or a GPU.

The model is made of tensors that have shapes and types but no data. The training step's forward pass runs on them, and
the bytes that autograd would keep are counted as in training (`measure_graph`). The estimate leaves out temporary
buffers of kernels, and the GPU's context of about half a gigabyte.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode  # PyTorch has no public name for it
from torch.func import functional_call

from embfit.errors import UserError
from embfit.loss import Relations
from embfit.model.encoder_choice import EncoderChoice
from embfit.model.layers import freeze, layer_stack, without_cache
from embfit.model.loading import DEFAULT_LENGTH, positions
from embfit.model.lora import attach
from embfit.model.precision import autocast, default_token_budget
from embfit.model.pretrained import Pretrained
from embfit.training.ranks.collectives import BUCKET
from embfit.training.ranks.units import Unit, shard_size, units_of, weights_of
from embfit.training.step.backbone import gradient_checkpointing
from embfit.training.step.loss_parts import loss_parts
from embfit.training.step.memory import measure_graph
from embfit.training.training import Training
from embfit.vectors import Vectors

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FLOAT = 4  # bytes of a float32
MASKS = 2  # bytes of a pair's label and mask
KEPT_VECTORS = 3  # copies of all vectors on a rank: per micro-batch, in one tensor, and their gradient


@dataclass(frozen=True)
class MemoryEstimate:
    """The memory of a step on each rank's device, in bytes.

    Args:
        parameters: how many weights the model has.
        trained: how many of them are trained.
        texts: how many texts the largest micro-batch has.
        length: how many tokens each of them has.
        weights: of the model, or the first rank's shard of them, which is the largest.
        gradients: of the trained weights, or of this shard of them.
        moments: AdamW's two of those.
        exchange: the copy in which ranks sum gradients.
        gathered: the sharded weights that are gathered at once: the unit that computes, the next one on its way, and
            what is outside layers and embeddings.
        reduced: the gradients of the largest unit before they are sharded, and the copy in which ranks sum them.
        full_model: all weights of a sharded model, which a device has between two steps to encode texts with them.
        graph: what a micro-batch keeps for the backward pass.
        checkpointed: what it keeps where layers are computed again, and what the largest of them takes then.
        vectors: those of the batch of all ranks.
        loss: what the loss keeps of its largest part.
        relations: labels and masks of the batch, with the scores of a teacher and of BM25 where the loss reads them.
        checkpointing: whether training computes layers again.
    """

    parameters: int
    trained: int
    texts: int
    length: int
    weights: int
    gradients: int
    moments: int
    exchange: int
    gathered: int
    reduced: int
    full_model: int
    graph: int
    checkpointed: int
    vectors: int
    loss: int
    relations: int
    checkpointing: bool

    @property
    def least(self) -> int:
        """The memory of a step, or more if a sharded model is gathered between steps to encode texts."""
        return max(self.step, self.weights + self.moments + self.full_model if self.full_model else 0)

    @property
    def step(self) -> int:
        """The memory of a step that keeps one micro-batch's graph; training keeps more graphs if there is room."""
        standing = self.weights + self.gradients + self.moments + self.vectors + self.relations
        micro_batch = (self.checkpointed if self.checkpointing else self.graph) + self.gathered + self.reduced
        # loss, micro-batch and exchange never exist at the same time
        return standing + max(micro_batch, self.loss, self.exchange)


def estimate_memory(
    model: EncoderChoice, training: Training, loss: nn.Module, ranks: int, negatives: int, sharded: bool = False
) -> MemoryEstimate:
    """Return the memory of a step on each GPU, for texts of the largest length.

    Args:
        model: is trained; of its files only `config.json` is read.
        training: says how large batches and micro-batches are.
        loss: is called on shapes.
        ranks: how many GPUs train together.
        negatives: of each query.
        sharded: whether each of several GPUs keeps a shard of every weight; else each has all weights.

    Raises:
        UserError: the model is no bi-encoder, cannot be found, has no such layers, or none of its weights is trained.
    """
    if not isinstance(model, Pretrained):
        raise UserError(f"memory is estimated for models with one vector a text, not for {model.kind}")
    if model.query_adapter.rank:
        raise UserError(f"model.query_adapter.rank={model.query_adapter.rank} trains no weights of the model")
    with torch.device("meta"):
        backbone, length = _backbone(model)
    _train(backbone, training.dropout)
    queries = training.batch_size * ranks
    documents = queries * (1 + negatives)
    budget = training.token_budget or default_token_budget(torch.device("cuda"))
    shape = min(max(1, budget // length), queries + documents), length
    bf16 = training.precision != "fp32"  # auto: all current GPUs multiply bf16
    units = units_of(backbone, bf16) if sharded and ranks > 1 else []
    formats = {weight: unit.gathered_as for unit, own in zip(units, weights_of(units), strict=True) for weight in own}
    graph = _graph(backbone, shape, bf16, formats)
    with gradient_checkpointing(backbone):
        inputs = _graph(backbone, shape, bf16, formats)
    weights = list(backbone.parameters())
    width = backbone.config.get_text_config().hidden_size
    _, layers = layer_stack(backbone, "training.gradient_checkpointing")
    return MemoryEstimate(
        parameters=sum(weight.numel() for weight in weights),
        trained=sum(weight.numel() for weight in weights if weight.requires_grad),
        texts=shape[0],
        length=length,
        graph=graph,
        checkpointed=inputs + (graph - inputs) // len(layers),
        vectors=KEPT_VECTORS * (queries + documents) * width * FLOAT,
        loss=_loss(loss, queries, documents, width),
        relations=queries * documents * _bytes_of_pair(loss),
        checkpointing=training.gradient_checkpointing,
        **_held(weights, units, ranks),
    )


def _held(weights: list[nn.Parameter], units: list[Unit], ranks: int) -> dict[str, int]:
    """Return the bytes of weights, gradients and moments: of all weights, or of a shard if there are units."""
    numbers = {weight: shard_size(weight.shape, ranks) if units else weight.numel() for weight in weights}
    trained = sum(number for weight, number in numbers.items() if weight.requires_grad)
    gathered, reduced = _gathering(units, ranks) if units else (0, 0)
    return {
        "weights": sum(number * weight.element_size() for weight, number in numbers.items()),
        "gradients": trained * FLOAT,
        "moments": 2 * trained * FLOAT,
        "exchange": min(trained, BUCKET) * FLOAT if ranks > 1 and not units else 0,
        "gathered": gathered,
        "reduced": reduced,
        "full_model": sum(weight.nbytes for weight in weights) if units else 0,
    }


def _backbone(model: Pretrained) -> tuple[PreTrainedModel, int]:
    """Return a backbone without data, with its trained weights marked, and the number of tokens that it reads."""
    backbone, said = model.without_weights()
    freeze(backbone, model.freeze_embeddings, model.freeze_layers)
    if model.lora.rank:
        attach(backbone, model.lora, model.freeze_layers, str(model.path), model.revision)
    model.check_length(backbone)
    own = said or DEFAULT_LENGTH
    return backbone, model.max_length or min(own, positions(backbone) or own)


def _train(backbone: PreTrainedModel, dropout: bool) -> None:
    """Turn dropout on or off, except inside a fused attention.

    A GPU's fused kernels keep nothing for dropout. A CPU's have no dropout: PyTorch would use plain attention instead,
    which keeps all attention weights.
    """
    for part in backbone.modules():
        part.training = dropout and (isinstance(part, nn.Dropout) or backbone.config._attn_implementation == "eager")


def _bytes_of_pair(loss: nn.Module) -> int:
    """Return the bytes for each pair of a query and a document: two masks, and the scores that the loss reads."""
    scores = ("needs_teacher", "reads_words")
    read = sum(any(getattr(part, name, False) for part in loss.modules()) for name in scores)
    return MASKS + read * FLOAT


def _gathering(units: list[Unit], ranks: int) -> tuple[int, int]:
    """Return the bytes of the units that are gathered at once, and of the largest unit's gradients.

    For both, PyTorch makes each rank's shard as large as the first one's.
    """
    sizes, sums = [], []
    for unit, weights in zip(units, weights_of(units), strict=True):
        formats = [unit.gathered_as or weight.dtype for weight in weights]
        shards = [shard_size(weight.shape, ranks) for weight in weights]
        sizes.append(sum(ranks * shard * given.itemsize for shard, given in zip(shards, formats, strict=True)))
        sums.append(
            sum(
                weight.numel() * given.itemsize + (ranks + 1) * shard * FLOAT
                for weight, shard, given in zip(weights, shards, formats, strict=True)
                if weight.requires_grad
            )
        )
    return 2 * max(sizes) + sizes[-1], max(sums)


def _graph(
    backbone: PreTrainedModel, shape: tuple[int, int], bf16: bool, formats: Mapping[nn.Parameter, torch.dtype | None]
) -> int:
    """Return the bytes that a micro-batch's graph keeps, where some weights are gathered in another format."""
    cpu = torch.device("cpu")  # the device of fake tensors, because autocast needs one
    with FakeTensorMode(), autocast(cpu, bf16):
        weights = {name: _fake(weight, formats.get(weight)) for name, weight in backbone.named_parameters()}
        buffers = {name: _fake(buffer) for name, buffer in backbone.named_buffers()}
        ids, mask = (torch.ones(shape, dtype=torch.int64) for _ in range(2))
        inputs = {"input_ids": ids, "attention_mask": mask, **without_cache(backbone)}
        with measure_graph(nn.ParameterList(weights.values())) as size:
            functional_call(backbone, weights | buffers, args=(), kwargs=inputs)
    return size.bytes


def _fake(tensor: Tensor, given: torch.dtype | None = None) -> Tensor:
    return torch.empty(tensor.shape, dtype=given or tensor.dtype, requires_grad=tensor.requires_grad)


def _loss(loss: nn.Module, queries: int, documents: int, width: int) -> int:
    """Return the bytes that the largest part of a loss keeps."""
    meta = torch.device("meta")
    loss = deepcopy(loss).to(meta)
    asked, read = (torch.empty(rows, width, device=meta, requires_grad=True) for rows in (queries, documents))
    labels = torch.empty(queries, documents, dtype=torch.bool, device=meta)
    scores = torch.empty(queries, documents, device=meta)
    relations = Relations(labels, labels, torch.empty(queries, device=meta), scores, scores)
    parts: Iterator[object] = loss_parts(loss, Vectors(asked), Vectors(read), relations)
    with measure_graph(nn.ParameterList([asked, read])) as size:
        next(iter(parts))
    return size.bytes
