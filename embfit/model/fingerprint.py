"""Fingerprints of models: of the weights, the configuration, the tokenizer and the settings around them.

No counter shows reliably that weights are unchanged: fused optimizers, and changes of a tensor's `data`, do not change
PyTorch's version counters. So the weights are read for every fingerprint, except within `frozen`, where the caller
guarantees that nothing trains the model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
import xxhash
from torch import Tensor, nn

from embfit.tokens import tokenizer_lock

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Keys of a configuration about its origin and format, which change nothing that a model computes.
INCIDENTAL = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "sentence_transformers")
ADAPTER = ".lora_"  # occurs in the names of an adapter's weights
QUERY_ADAPTER = "query_adapter."  # begins the names of weights that change only queries
# The same for an adapter's configuration. The names of the weights show which modules have an adapter.
INCIDENTAL_TO_ADAPTERS = ("base_model_name_or_path", "revision", "inference_mode", "peft_version", "target_modules")


def model_fingerprint(
    model: nn.Module, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: Mapping[str, Any]
) -> str:
    """Identify everything that a model's results depend on besides its input.

    Args:
        model: the module with all weights, of the backbone and of the layers after it.
        backbone: the backbone, whose configuration and adapters' configurations count.
        tokenizer: the tokenizer.
        settings: everything else, as JSON values.
    """
    parts = {
        **settings,
        "weights": _weights_digest(model),
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "backbone": _describe(backbone),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=_plain).encode()).hexdigest()


def backbone_fingerprint(backbone: PreTrainedModel) -> str:
    """Identify everything that hidden states depend on besides tokens and precision: weights and configuration."""
    parts = {"weights": read_weights(backbone), "backbone": _describe(backbone)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=_plain).encode()).hexdigest()


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Read a model's weights only once for all fingerprints in this context, in which nothing may train it.

    Replaced tensors, and changes that PyTorch counts, are still noticed.
    """
    known = _FROZEN.get(model)
    if known is not None:  # nested contexts share the digest
        yield
        return
    _FROZEN[model] = _FrozenWeights()
    try:
        yield
    finally:
        del _FROZEN[model]


class _FrozenWeights:
    """A digest of weights, and the state of the tensors when it was made."""

    def __init__(self) -> None:
        self._digest = ""
        self._seen: dict[str, tuple[Tensor, int]] | None = None

    def digest(self, model: nn.Module) -> str:
        tensors = model.state_dict(keep_vars=True)
        if self._seen is None or not self._same(tensors):
            # views keep the tensors' memory, so that no other tensor can get the same address
            self._seen = {name: (tensor.detach(), tensor._version) for name, tensor in tensors.items()}
            self._digest = read_weights(model)
        return self._digest

    def _same(self, tensors: Mapping[str, Tensor]) -> bool:
        seen = self._seen or {}
        return tensors.keys() == seen.keys() and all(
            _place(tensor) == _place(seen[name][0]) and tensor._version == seen[name][1]
            for name, tensor in tensors.items()
        )


_FROZEN: WeakKeyDictionary[nn.Module, _FrozenWeights] = WeakKeyDictionary()


def _weights_digest(model: nn.Module) -> str:
    known = _FROZEN.get(model)
    return read_weights(model) if known is None else known.digest(model)


def read_weights(model: nn.Module) -> str:
    """Return the digest of the weights that queries and documents share (XXH3, as fast as memory)."""
    tensors = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(QUERY_ADAPTER)}
    if has_idle_adapter(tensors):
        tensors = {name.replace(".base_layer.", "."): one for name, one in tensors.items() if ADAPTER not in name}
    return digest_tensors(tensors)


def digest_tensors(tensors: Mapping[str, Any]) -> str:
    """Return the digest of tensors by name."""
    found = xxhash.xxh3_128()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def has_idle_adapter(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether a new low-rank adapter adds nothing yet, so that the model equals its base (Hu et al. 2021).

    A model that is about to be trained then finds its base's embeddings in the store.

    Args:
        tensors: the model's weights by name.
    """
    last = [tensor for name, tensor in tensors.items() if f"{ADAPTER}B." in name]
    return bool(last) and not any(bool(tensor.any()) for tensor in last)


def _place(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride()


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Identify a tokenizer, without its current settings of truncation and padding."""
    with tokenizer_lock(tokenizer):
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
    sides = {"truncation": tokenizer.truncation_side, "padding": tokenizer.padding_side}
    return hashlib.sha256(json.dumps({**rules, **sides}, sort_keys=True).encode()).hexdigest()


def _describe(backbone: PreTrainedModel) -> dict[str, Any]:
    """Return everything besides weights that changes results: architecture, configuration, adapters' settings."""
    adapters = {} if has_idle_adapter(backbone.state_dict()) else getattr(backbone, "peft_config", {})
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
    """Return a JSON value for an object that JSON does not support."""
    return sorted(value) if isinstance(value, set) else str(value)
