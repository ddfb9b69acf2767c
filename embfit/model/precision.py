"""Chooses the device, the number format and the size of batches in tokens."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

import torch

Precision: TypeAlias = Literal["auto", "fp32", "bf16"]
EncoderPrecision: TypeAlias = Literal["auto", "fp32", "bf16", "int8"]
"""Of texts' encoders, which OpenVINO and ONNX Runtime also compute in int8."""


def choose_device(device: str = "auto") -> torch.device:
    """Return the named device, or for `auto` the first available of CUDA, Apple's MPS and the CPU."""
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def by_pytorch(precision: EncoderPrecision) -> Precision:
    """Return the number format for PyTorch, which has no int8."""
    return "fp32" if precision == "int8" else precision


def uses_bf16(precision: Precision, device: torch.device) -> bool:
    """Return whether encoders compute in bfloat16: as configured, or for `auto` if that is faster."""
    return precision == "bf16" or (precision == "auto" and multiplies_bf16(device))


def multiplies_bf16(device: torch.device) -> bool:
    """Return whether the hardware multiplies bfloat16: recent NVIDIA GPUs, CPUs with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and _has_any(" avx512_bf16", " amx_bf16")


def multiplies_int8() -> bool:
    """Return whether the CPU sums products of 8 bits in 32 bits: x86 with VNNI, other CPUs always."""
    return platform.machine().lower() not in ("x86_64", "amd64") or _has_any(" avx512_vnni", " avx_vnni")


@cache  # cached: with many cores, the file takes longer to read than a query to encode
def _has_any(*flags: str) -> bool:
    facts = Path("/proc/cpuinfo")
    there = facts.read_text(encoding="utf-8") if facts.is_file() else ""
    return any(flag in there for flag in flags)


def default_token_budget(device: torch.device) -> int:
    """Return the padded tokens of a batch: few on a CPU, so that activations stay in its caches.

    `scripts/benchmarks/token_budget.py` compares sizes. A GPU needs large batches.
    """
    return 1_024 if device.type == "cpu" else 16_384


def autocast(device: torch.device, bf16: bool) -> AbstractContextManager[object]:
    """Return a context in which PyTorch computes matrix products in bfloat16; without `bf16` it changes nothing."""
    return torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()
