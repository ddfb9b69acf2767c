"""`embfit doctor`: what this machine has for embfit, and what the next run would do."""

from __future__ import annotations

import os
import platform
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import embfit
from embfit.compose.command_line import Parser
from embfit.compose.composition import check_composed, compose, described, hydra_session
from embfit.compose.loader import make_loader
from embfit.compose.search_path import added_sources
from embfit.compose.value_table import aligned

PACKAGES = ("torch", "transformers", "pytorch-lightning", "hydra-core", "datasets", "faiss-cpu", "bm25s")
HUB_SECONDS = 3.0
GB = 1e9

Row = tuple[str, str]


def run(arguments: Sequence[str]) -> None:
    """Run `embfit doctor [OVERRIDES]`.

    Raises:
        ConfigError: the overrides compose no run.
    """
    parser = Parser(prog="embfit doctor", description="What this machine has, and what the next run would do.")
    parser.add_argument("overrides", nargs="*", help="GROUP=CHOICE and KEY=VALUE of the next run")
    given = parser.parse_args(list(arguments))
    for rows in (_versions(), _machine(), _next_run(given.overrides)):
        print("\n".join(aligned(list(rows))) + "\n")


def _versions() -> Iterator[Row]:
    yield "embfit", f"{embfit.__version__} in {Path(embfit.__file__).parent}"
    yield "Python", f"{platform.python_version()} on {platform.platform()}"
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, "not installed"
    for source in added_sources():
        yield "choices of", f"{source.provider} in {source.folder}"


def _machine() -> Iterator[Row]:
    import torch

    from embfit.model.precision import choose_device, multiplies_bf16
    from embfit.training.memory import free_bytes

    cpu = torch.device("cpu")
    yield "CPU", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {_bf16(multiplies_bf16(cpu))}"
    yield "memory", f"{free_bytes(cpu) / GB:.1f} GB free"
    for number in range(torch.cuda.device_count()):
        device = torch.device("cuda", number)
        free = f"{free_bytes(device) / GB:.1f} GB free, {_bf16(multiplies_bf16(device))}"
        yield f"GPU {number}", f"{torch.cuda.get_device_name(device)}, {free}"
    yield "computes on", str(choose_device())
    yield "disk", f"{shutil.disk_usage('.').free / GB:.1f} GB free here"
    yield "Hub", _hub()


def _bf16(there: bool) -> str:
    return "multiplies bf16" if there else "no bf16 multiplication, so precision=auto is fp32"


def _hub() -> str:
    """Say whether the Hub answers; any answer will do."""
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        return "not asked, since HF_HUB_OFFLINE is set; what is on this machine works"
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=HUB_SECONDS):
            return f"{address} answers"
    except urllib.error.HTTPError as error:
        return f"{address} answers ({error.code})"
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return f"{address} cannot be reached ({reason}); models and data on this machine work"


def _next_run(overrides: Sequence[str]) -> Iterator[Row]:
    """Compose and check what these overrides stand for."""
    loader = make_loader()
    with hydra_session(loader):
        check_composed(loader, compose(loader, overrides), overrides)
        values, origins = described(loader, overrides)
    yield "next run", " ".join(["python -m embfit", *overrides])
    for group, layers in origins.choices.items():
        yield f"  {group}", f"{layers[0].value or 'none'} ({layers[0].source})"
    yield "  weights", _weights(values.get("model") or {})
    yield "  run folder", str(values["run"]["dir"])
    yield "  store", str(values["store"]["dir"]) + ("" if values["store"]["enabled"] else ", not used")
    yield "  checked", "the configuration is sound; data and weights were not touched"


def _weights(node: dict[str, Any]) -> str:
    """Say where a model's files will come from."""
    import importlib.util

    from huggingface_hub import try_to_load_from_cache

    path, package = node.get("path"), node.get("package")
    if package and importlib.util.find_spec(str(package)):
        return f"its files are in the package {package}"
    if path is None:
        return "has no path"
    if Path(str(path)).expanduser().is_dir():
        return f"its files are in {path}"
    cached = try_to_load_from_cache(str(path), "config.json", revision=node.get("revision"))
    return f"{path} is in the Hub's cache" if isinstance(cached, str) else f"{path} will be downloaded from the Hub"
