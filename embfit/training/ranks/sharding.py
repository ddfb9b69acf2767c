"""Sharded weights (FSDP): each rank keeps a shard of every weight, of its gradient and of its two moments.

PyTorch's `fully_shard` gathers a unit's weights before the unit computes and frees them afterwards. After the unit's
backward pass, it gives each rank its shard of the gradients' sum. All ranks must make the same passes in the same
order; `BatchGradients` plans them so. Lightning's strategies for sharding are not used: they start processes, join them
and write checkpoints, which embfit does itself.

The first rank also keeps the full encoder in the CPU's memory. The trained weights are gathered into it before it is
validated, mines or is saved. Frozen weights are never gathered for that: only the adapter's are if an adapter is
trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from embfit.errors import UserError
from embfit.model import CrossEncoder, Encoder
from embfit.model.precision import Precision, uses_bf16
from embfit.training.ranks.collectives import Ranks
from embfit.training.ranks.units import Unit, units_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TINY = 1e-6  # as in PyTorch's own clipping
GATHERS_IN_BF16 = ("cuda",)  # autocast on a CPU does not cast the weights of a norm to what it computes in


class Shards:
    """A sharded encoder, which is trained, and on the first rank the full encoder as well.

    Args:
        encoder: the full encoder. On the first rank it is moved to the CPU, and a copy of it is sharded. On the others
            it is sharded itself.
        ranks: the processes that train together, all of which make this object.
        precision: the number format in which training computes.

    Attributes:
        encoder: the sharded encoder.
        full: the full encoder; None on the other ranks.

    Raises:
        UserError: the encoder cannot be sharded, or this PyTorch cannot do it.
    """

    def __init__(self, encoder: Encoder | CrossEncoder, ranks: Ranks, precision: Precision) -> None:
        self.place = encoder.device
        self.full = encoder.cpu() if ranks.leads else None
        self.encoder = deepcopy(encoder) if ranks.leads else encoder
        bf16 = _kind() in GATHERS_IN_BF16 and uses_bf16(precision, torch.device(_kind()))
        shard_model(self.encoder.backbone, _head_modules(self.encoder), bf16)
        for name, weight in self.encoder.named_parameters():
            if not isinstance(weight, DTensor):
                raise UserError(
                    f"trainer.strategy=fsdp cannot shard {name}, which is neither in the backbone nor in a module "
                    "after it; set trainer.strategy=ddp"
                )

    @torch.no_grad()
    def gather(self) -> None:
        """Copy the weights that are trained into the full encoder; all ranks take part."""
        for name, weight in self.encoder.named_parameters():
            if weight.requires_grad:
                found = cast(DTensor, weight).full_tensor()
                if self.full is not None:
                    self.full.get_parameter(name).copy_(found)
        if _kind() == "cuda":
            torch.cuda.empty_cache()  # other processes may encode with the full model on this GPU next

    @contextmanager
    def gathered(self) -> Iterator[Encoder | CrossEncoder]:
        """Gather, and yield the full encoder on the task's device; all ranks take part.

        Other ranks than the first get the sharded encoder, which must not compute in this context.
        """
        self.gather()
        if self.full is None:
            yield self.encoder
            return
        self.full.to(self.place)
        try:
            yield self.full
        finally:
            self.full.cpu()

    def gather_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return an optimizer's state as if nothing were sharded; all ranks take part, and only the first gets it."""
        state = optimizer.state_dict()
        full: dict[int, dict[str, Any]] = {}
        for number, moments in state["state"].items():
            for name, value in moments.items():
                found = value.full_tensor().cpu() if isinstance(value, DTensor) else value
                if self.full is not None:
                    full.setdefault(number, {})[name] = found
        return {**state, "state": full}

    @staticmethod
    def shard_state(state: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
        """Return this rank's shard of a state that `gather_state` returned, or that an optimizer without shards has."""
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        shards = {
            number: {name: _shard(value, weights[number]) for name, value in moments.items()}
            for number, moments in state["state"].items()
        }
        return {**state, "state": shards}


def clip_gradients(sharded: Iterable[nn.Parameter], replicated: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale gradients down to a norm, as `nn.utils.clip_grad_norm_` does; return the norm before that, of all weights.

    Args:
        sharded: weights of which each rank has a shard.
        replicated: weights that every rank has, with the same gradients.
        max_norm: the largest norm that is left.
    """
    shards = [cast(DTensor, weight.grad).to_local() for weight in sharded if weight.grad is not None]
    others = [weight.grad for weight in replicated if weight.grad is not None]
    squares = _square_of_norm(shards)
    distributed.all_reduce(squares)
    norm = (squares + _square_of_norm(others)).sqrt() if others else squares.sqrt()
    scale = (max_norm / (norm + TINY)).clamp(max=1.0)
    for gradient in (*shards, *others):
        gradient.mul_(scale)
    return norm


def _square_of_norm(gradients: list[Tensor]) -> Tensor:
    return torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]).square().sum()


def shard_model(backbone: PreTrainedModel, head: Iterable[nn.Module], bf16: bool) -> None:
    """Replace each weight of a model by this rank's shard of it, on this rank's device.

    Args:
        backbone: the model.
        head: modules that compute after it.
        bf16: whether layers are gathered in bf16.

    Raises:
        UserError: the backbone cannot be sharded, or this PyTorch cannot do it.
    """
    if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
        raise UserError(
            f"trainer.strategy=fsdp: PyTorch {torch.__version__} cannot sum the gradients of shards; install a newer "
            "one (2.13 is tested), or set trainer.strategy=ddp"
        )
    mesh = init_device_mesh(_kind(), (distributed.get_world_size(),))
    for unit in (*units_of(backbone, bf16), *map(Unit, head)):
        policy = MixedPrecisionPolicy(unit.gathered_as, torch.float32, cast_forward_inputs=False)  # autocast casts them
        module = fully_shard(unit.module, mesh=mesh, mp_policy=policy)
        module.set_gradient_divide_factor(1.0)  # the loss is that of the whole batch already, so no mean is wanted
        module.set_force_sum_reduction_for_comms(True)  # gloo has no other


def _kind() -> str:
    """Return the kind of device on which ranks keep their shards."""
    return "cuda" if distributed.get_backend() == "nccl" else "cpu"


def _head_modules(encoder: nn.Module) -> list[nn.Module]:
    """Return the modules with weights that compute after the backbone."""
    children = [child for name, child in encoder.named_children() if name != "backbone"]
    modules = [one for child in children for one in (child if isinstance(child, nn.ModuleList) else [child])]
    return [module for module in modules if next(module.parameters(), None) is not None]


def _shard(value: Any, weight: Tensor) -> Any:
    """Return this rank's shard of a weight's moment; a value of another shape, such as the step count, is unchanged."""
    if not isinstance(weight, DTensor) or value.shape != weight.shape:
        return value
    mesh = weight.device_mesh
    chunks, rank = value.chunk(mesh.size()), mesh.get_local_rank()
    local = chunks[rank] if rank < len(chunks) else value[:0]
    return DTensor.from_local(
        local.to(weight.device, copy=True),
        mesh,
        weight.placements,
        run_check=False,
        shape=value.shape,
        stride=value.stride(),
    )
