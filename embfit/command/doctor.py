"""`embfit doctor`: what this machine has for embfit, and what the next run would do."""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as release
from pathlib import Path
from typing import Any, NamedTuple

from embfit import version
from embfit.command.training_memory import training_memory
from embfit.compose.command_line import Parser
from embfit.compose.composition import check_composed, compose, hydra_session
from embfit.compose.explain import aligned
from embfit.compose.loader import make_loader
from embfit.compose.search_path import added_sources
from embfit.compose.value_origins import Origins
from embfit.credentials import check_address, read_key, without_secrets
from embfit.errors import ConfigError, UserError
from embfit.run.console import listen

PACKAGES = ("torch", "transformers", "pytorch-lightning", "hydra-core", "datasets", "faiss-cpu", "bm25s")
HUB_SECONDS = 3.0
GB = 1e9

Row = tuple[str, ...]


class HubStatus(NamedTuple):
    """Whether the Hub answers.

    Args:
        said: what is printed of it.
        silent: the end of a sentence about the Hub which says why it gives no files; empty where it answers.
    """

    said: str
    silent: str = ""


def run(arguments: Sequence[str]) -> None:
    """Run `embfit doctor [OVERRIDES]`.

    Raises:
        ConfigError: the overrides compose no run.
        UserError: with `--memory`, as `estimate_memory`.
    """
    parser = Parser(prog="embfit doctor", description="Show what this machine has, and what the next run would do.")
    parser.add_argument("overrides", nargs="*", help="GROUP=CHOICE and KEY=VALUE of the next run")
    parser.add_argument(
        "--memory", action="store_true", help="show only what a training step of that run takes of a GPU"
    )
    given = parser.parse_args(list(arguments))
    if given.memory:
        print("\n".join(aligned(list(training_memory(_composed(given.overrides)[0])))))
        return
    hub = _hub()
    for rows in (_versions(), _machine(hub), _next_run(given.overrides, hub)):
        print("\n".join(aligned(list(rows))) + "\n")


def _versions() -> Iterator[Row]:
    yield "embfit", f"{version.__version__} in {Path(version.__file__).parent}"
    yield "Python", f"{platform.python_version()} on {platform.platform()}"
    for package in PACKAGES:
        try:
            yield package, release(package)
        except PackageNotFoundError:
            yield package, "not installed"
    for source in added_sources():
        yield "choices of", f"{source.provider} in {source.folder}"


def _machine(hub: HubStatus) -> Iterator[Row]:
    import torch

    from embfit.model.precision import choose_device, multiplies_bf16
    from embfit.training.step.memory import free_bytes

    cpu = torch.device("cpu")
    yield "CPU", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {_bf16(multiplies_bf16(cpu))}"
    yield "memory", f"{free_bytes(cpu) / GB:.1f} GB free"
    for number in range(torch.cuda.device_count()):
        device = torch.device("cuda", number)
        free = f"{free_bytes(device) / GB:.1f} GB free, {_bf16(multiplies_bf16(device))}"
        yield f"GPU {number}", f"{torch.cuda.get_device_name(device)}, {free}"
    yield "computes on", str(choose_device())
    yield "disk", f"{shutil.disk_usage('.').free / GB:.1f} GB free here"
    yield "Hub", hub.said


def _bf16(there: bool) -> str:
    return "multiplies bf16" if there else "no bf16 multiplication, so precision=auto is fp32"


def _hub() -> HubStatus:
    """Ask whether the Hub answers; any answer will do."""
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        return HubStatus(
            "not contacted, since HF_HUB_OFFLINE is set; models and data on this machine work", "is not contacted"
        )
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=HUB_SECONDS):
            return HubStatus(f"{address} answers")
    except urllib.error.HTTPError as error:
        return HubStatus(f"{address} answers ({error.code})")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        said = f"{address} cannot be reached ({reason}); models and data on this machine work"
        return HubStatus(said, "cannot be reached")


def _composed(overrides: Sequence[str]) -> tuple[dict[str, Any], Origins]:
    """Compose and check what overrides stand for; the keys that are left out are logged."""
    listen()
    loader = make_loader()
    with hydra_session(loader):
        found = check_composed(loader, compose(loader, overrides), overrides)
    return found.values, found.origins


def _next_run(overrides: Sequence[str], hub: HubStatus) -> Iterator[Row]:
    """Compose and check what these overrides stand for."""
    values, origins = _composed(overrides)
    yield "next run", " ".join(["python -m embfit", *(shlex.quote(without_secrets(text)) for text in overrides)])
    for group, layers in origins.choices.items():
        yield f"  {group}", f"{layers[0].value or 'none'} ({layers[0].source})"
    yield "  weights", _weights(values.get("model") or {}, hub)
    for group in ("generator", "evaluation"):
        node = values.get(group) or {}
        if isinstance(node.get("model"), str):
            yield f"  {group}.model", _served(group, node) if node.get("url") else _writer(group, node, hub)
    if readers := _readers(values.get("data") or {}):
        yield "  readers", readers
    yield "  run folder", str(values["run"]["dir"])
    yield "  store", str(values["store"]["dir"]) + ("" if values["store"]["enabled"] else ", not used")
    yield "  checked", "the configuration is valid; data and weights were not touched"


def _readers(node: dict[str, Any]) -> str:
    """Say which formats of documents can be read here; empty if no files of documents are read."""
    if not str(node.get("_target_", "")).endswith(".Documents") and not node.get("corpus"):
        return ""
    from embfit.data.formats.readers import FORMATS, has_reader

    forms = dict.fromkeys(FORMATS.values())
    there = ", ".join(form.name for form in forms if has_reader(form))
    missing = ", ".join(form.name for form in forms if not has_reader(form))
    return f"{there}; pip install 'embfit[documents]' adds {missing}" if missing else there


def _weights(node: dict[str, Any], hub: HubStatus) -> str:
    """Say where the encoder's files will come from."""
    path, first = node.get("path"), node.get("first_stage")
    if path is None:
        return f"those of model.first_stage: {_weights(first, hub)}" if first else "model.path is not set"
    packages = node.get("packages") or (first or {}).get("packages")
    return _files("model.path", str(path), node.get("revision"), packages, hub)


def _writer(group: str, node: dict[str, Any], hub: HubStatus) -> str:
    """Say where the files of a language model that runs here will come from."""
    path, gguf = Path(node["model"]).expanduser(), node.get("gguf")
    if path.suffix != ".gguf" and gguf is None:
        return _files(f"{group}.model", str(node["model"]), node.get("revision"), None, hub)
    needed = "" if importlib.util.find_spec("gguf") else "; GGUF files need pip install 'embfit[gguf]'"
    if gguf is None or path.is_dir():
        file = path if gguf is None else path / gguf
        return (f"from {file}" if file.is_file() else f"{file}: there is no such GGUF file") + needed
    return _files(f"{group}.model", str(node["model"]), node.get("revision"), None, hub, gguf) + needed


def _served(group: str, node: dict[str, Any]) -> str:
    """Say which server has a language model, and whether its key is set; the server is not contacted."""
    variable = node.get("key_variable")
    try:
        address = check_address(node["url"], f"{group}.url", "http://localhost:8000/v1")
        if variable is not None and not variable.isidentifier():  # it may be the key itself
            raise ConfigError(f"{group}.key_variable is not the name of an environment variable")
        read_key(variable, f"{group}.key_variable")
    except ConfigError as error:
        return str(error)
    return f"{node['model']} at {address}, {'without a key' if variable is None else f'with the key in {variable}'}"


def _files(
    key: str,
    path: str,
    revision: str | None,
    packages: dict[str, str] | None,
    hub: HubStatus,
    file: str = "config.json",
) -> str:
    """Say where the files of a model come from that a key names: a folder, an installed package, or the Hub."""
    from embfit.model.location import find_here, in_cache

    try:
        here = find_here(path, revision, packages)
        if here is not None:
            return f"from {here}"
        if in_cache(path, revision, file):
            return f"{path} is in the Hub's cache"
    except UserError as error:
        return str(error)
    if hub.silent:
        return f"{path} is not on this machine, and the Hub {hub.silent}; give a folder: {key}=FOLDER"
    return f"{path} will be downloaded from the Hub"
