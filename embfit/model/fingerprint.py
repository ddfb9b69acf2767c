"""What identifies a model: its weights, its configuration, its tokenizer and the settings around them.

Nothing tells reliably that weights are still what they were: fused optimizers, and what is done to a tensor's `data`,
leave PyTorch's version counters as they are. So the weights are read whenever a fingerprint is asked for, except within
`frozen`, where the caller answers for it that nothing trains the model.
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

# Keys of a configuration that say where it came from and how it was written: they change nothing that a model computes.
INCIDENTAL = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "sentence_transformers")
ADAPTER = ".lora_"  # in the names of an adapter's weights
QUERY_ADAPTER = "query_adapter."  # begins the names of the weights that change queries alone
# Such keys of an adapter's configuration. The modules that have an adapter are seen among the weights.
INCIDENTAL_TO_ADAPTERS = ("base_model_name_or_path", "revision", "inference_mode", "peft_version", "target_modules")


def model_fingerprint(
    model: nn.Module, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: Mapping[str, Any]
) -> str:
    """Identify what a model's results depend on besides its input.

    Args:
        model: has the weights, those of the backbone and of what comes after it.
        backbone: has a configuration that says what is done with the weights, and so may its adapters.
        tokenizer: reads the model's text.
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
    """Identify what hidden states depend on besides the tokens and the precision: weights and configuration."""
    parts = {"weights": read_weights(backbone), "backbone": _describe(backbone)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=_plain).encode()).hexdigest()


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Read a model's weights once for all fingerprints within this context, in which nothing may train it.

    Other tensors in the place of the weights, and changes that PyTorch counts, are noticed all the same.
    """
    known = _FROZEN.get(model)
    if known is not None:  # contexts within each other share what was read
        yield
        return
    _FROZEN[model] = _FrozenWeights()
    try:
        yield
    finally:
        del _FROZEN[model]


class _FrozenWeights:
    """The digest of weights, and what they were when it was taken."""

    def __init__(self) -> None:
        self._digest = ""
        self._seen: dict[str, tuple[Tensor, int]] | None = None

    def digest(self, model: nn.Module) -> str:
        tensors = model.state_dict(keep_vars=True)
        if self._seen is None or not self._same(tensors):
            # views of the tensors hold their memory, so that no other tensor can come to lie there
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
    """Return the digest of the weights that queries and documents share: XXH3, which keeps up with the memory."""
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
    """Say whether a low-rank adapter is there that adds nothing yet, so that the model is its base (Hu et al. 2021).

    What the base has embedded is then found in the store by a model that is about to be trained.

    Args:
        tensors: the model's weights by name.
    """
    last = [tensor for name, tensor in tensors.items() if f"{ADAPTER}B." in name]
    return bool(last) and not any(bool(tensor.any()) for tensor in last)


def _place(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride()


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Identify a tokenizer, whatever length it was last told to cut or to pad to."""
    with tokenizer_lock(tokenizer):
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
    sides = {"truncation": tokenizer.truncation_side, "padding": tokenizer.padding_side}
    return hashlib.sha256(json.dumps({**rules, **sides}, sort_keys=True).encode()).hexdigest()


def _describe(backbone: PreTrainedModel) -> dict[str, Any]:
    """Return what changes the results of equal weights: architecture, configuration and settings of adapters."""
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
    """Return a JSON value for what JSON does not know."""
    return sorted(value) if isinstance(value, set) else str(value)
