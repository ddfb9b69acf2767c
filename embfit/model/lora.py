"""LoRA through peft: small trained matrices added to frozen weights (Hu et al. 2022).

A frozen weight W becomes W + (alpha / rank) · B · A, with A [rank, in] and B [out, rank]. B begins as zeros, so
training starts at the base model. The base may be in bf16: A and B are fp32, like all weights that are trained.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import nn

from embfit.errors import UserError
from embfit.model.folder import read_json
from embfit.model.layers import layer_stack
from embfit.records import Seed

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class LoRA:
    """The settings of an adapter.

    Args:
        rank: the rank of the trained matrices; None trains the weights themselves.
        alpha: the adapter's part is scaled by alpha / rank.
        dropout: the dropout on the adapter's input, if `training.dropout` is on.
        targets: the names of the linear modules that get an adapter; None gives one to all modules of the layers.
        merged: whether to save the sum of base and adapter, which loads like any model; otherwise only the adapter is
            saved, with the name of its base.
        seed: the seed of the initial matrices.
    """

    rank: Annotated[int, Field(ge=1)] | None = None
    alpha: Annotated[int, Field(ge=1)] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Sequence[str] | None = None
    merged: bool = True
    seed: Seed = 0


NO_ADAPTER = LoRA()


def attach(
    backbone: PreTrainedModel,
    lora: LoRA,
    frozen_layers: int,
    base: str,
    revision: str | None,
    group: str = "model.lora",
) -> None:
    """Freeze a backbone and put an adapter on its layers.

    Args:
        backbone: the model, which is changed in place.
        lora: the settings of the adapter, whose rank is set.
        frozen_layers: how many layers, from the bottom, get no adapter.
        base: the name or folder by which a saved adapter finds these weights.
        revision: the revision of the base on the Hub.
        group: the key of the adapter's settings in a configuration, for messages.

    Raises:
        UserError: as `check_lora`.
    """
    check_lora(backbone, lora, frozen_layers, group)
    from peft import LoraConfig

    config = LoraConfig(
        r=lora.rank or 0,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=_targets(backbone, lora.targets, frozen_layers, group),
        revision=revision,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(lora.seed)
        backbone.add_adapter(config)
    backbone.peft_config["default"].base_model_name_or_path = base
    for name, weight in backbone.named_parameters():
        weight.requires_grad_("lora_" in name)
        if weight.requires_grad:
            weight.data = weight.data.float()


def check_lora(backbone: PreTrainedModel, lora: LoRA, frozen_layers: int, group: str = "model.lora") -> None:
    """Check that an adapter can be attached.

    Raises:
        UserError: peft is not installed, or a target module is missing.
    """
    if lora.rank:
        require_peft(f"{group}.rank")
        _targets(backbone, lora.targets, frozen_layers, group)


def merge(backbone: PreTrainedModel) -> None:
    """Add the adapter to its base weights and remove it."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in list(backbone.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            parent, _, child = name.rpartition(".")
            setattr(backbone.get_submodule(parent), child, layer.get_base_layer())
    del backbone.peft_config
    backbone._hf_peft_config_loaded = False


def has_adapter(backbone: nn.Module) -> bool:
    """Return whether the model has an unmerged adapter."""
    return bool(getattr(backbone, "_hf_peft_config_loaded", False))


def read_base(folder: Path) -> tuple[str, str | None] | None:
    """Return the name or folder, and the revision, of a saved adapter's base; None if a folder is not only an adapter.

    Raises:
        UserError: peft is not installed, or the adapter's configuration is not JSON or names no base.
    """
    if not (folder / CONFIG).is_file() or (folder / "config.json").is_file():
        return None
    require_peft(str(folder / CONFIG))
    config = read_json(folder / CONFIG)
    if not config.get("base_model_name_or_path"):
        raise UserError(f"{folder / CONFIG}: base_model_name_or_path is empty, so the adapter's base is unknown")
    return str(config["base_model_name_or_path"]), config.get("revision")


def load_adapter(backbone: PreTrainedModel, folder: Path) -> None:
    """Load a saved adapter onto its base, in the precision in which it was saved: fp32."""
    backbone.load_adapter(str(folder))
    saved = load_file(folder / WEIGHTS) if (folder / WEIGHTS).is_file() else {}
    for name, weight in backbone.named_parameters():  # transformers has cast them to the base's type
        found = saved.get(f"base_model.model.{name.replace('.default', '')}")
        if found is not None:
            weight.data = found.float().to(weight.device)


def require_peft(key: str) -> None:
    """Check that peft is installed.

    Raises:
        UserError: peft is not installed.
    """
    if importlib.util.find_spec("peft") is None:
        raise UserError(f"{key}: adapters need peft, which is not installed: pip install 'embfit[lora]'")


def _targets(backbone: PreTrainedModel, names: Sequence[str] | None, frozen_layers: int, group: str) -> str:
    """Return a pattern for the linear modules of the trained layers (peft matches full names)."""
    stack, layers = layer_stack(backbone)
    linear = {
        name.rpartition(".")[2]
        for layer in layers
        for name, module in layer.named_modules()
        if isinstance(module, nn.Linear)
    }
    unknown = sorted(set(names or ()) - linear)
    if unknown:
        raise UserError(
            f"{group}.targets: the layers of {type(backbone).__name__} have no linear module {unknown[0]!r}; "
            f"they have {', '.join(sorted(linear))}"
        )
    number = "|".join(map(str, range(frozen_layers, len(layers)))) if frozen_layers else r"\d+"
    return rf"{re.escape(stack)}\.(?:{number})\.(?:.*\.)?(?:{'|'.join(sorted(names or linear))})"
