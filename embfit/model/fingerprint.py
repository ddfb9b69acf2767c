"""What identifies a model: its weights, its configuration, its tokenizer and the settings around them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

# of a configuration: where it came from and how it was written, which change nothing that a model computes
INCIDENTAL = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "sentence_transformers")
# and of an adapter's; the modules that have one are seen among the weights
INCIDENTAL_TO_ADAPTERS = ("base_model_name_or_path", "revision", "inference_mode", "peft_version", "target_modules")


def model_fingerprint(
    model: nn.Module, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: Mapping[str, Any]
) -> str:
    """Identify what a model's results depend on besides its input.

    Reads every weight (a second or so per gigabyte), since training changes them.

    Args:
        model: has the weights, those of the backbone and of what comes after it.
        backbone: its configuration says what is done with the weights, and so do those of its adapters.
        tokenizer: of the model.
        settings: everything else, as JSON values.
    """
    parts = {**settings, "tokenizer": tokenizer_fingerprint(tokenizer), "backbone": _describe(backbone)}
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=_plain).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Identify a tokenizer, whatever length it was last told to cut or to pad to."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    sides = {"truncation": tokenizer.truncation_side, "padding": tokenizer.padding_side}
    return hashlib.sha256(json.dumps({**rules, **sides}, sort_keys=True).encode()).hexdigest()


def _describe(backbone: PreTrainedModel) -> dict[str, Any]:
    """Return all that is computed differently with equal weights."""
    adapters = getattr(backbone, "peft_config", {})
    return {
        "architecture": type(backbone).__name__,
        "config": _without(backbone.config.to_diff_dict(), INCIDENTAL),
        "adapters": {
            name: _without(adapter.to_dict(), INCIDENTAL_TO_ADAPTERS) for name, adapter in sorted(adapters.items())
        },
    }


def _without(values: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in names}


def _plain(value: Any) -> Any:
    """Return a JSON value for what JSON does not know."""
    return sorted(value) if isinstance(value, set) else str(value)
