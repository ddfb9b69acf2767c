"""What identifies a model: its weights, its tokenizer and the settings around them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase


def model_fingerprint(module: nn.Module, settings: Mapping[str, Any]) -> str:
    """Identify what a model's results depend on besides its input.

    Reads every weight (a second or so per gigabyte), since training changes them.

    Args:
        module: has the weights.
        settings: everything else, as JSON values.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Identify a tokenizer, whatever truncation and padding it was last told."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    told = {**rules, "truncation": None, "padding": None}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
