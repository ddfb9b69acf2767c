"""`task=export`: writes a model as a graph for other servers, or a bundle's vectors for other databases."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from embfit.bundle import BundleVersions
from embfit.bundle.parquet import write_parquet
from embfit.bundle.versions import split_version
from embfit.compose.tasks import task
from embfit.errors import ConfigError, UserError
from embfit.model import Pretrained
from embfit.run.devices import Devices
from embfit.run.folder import RunFolder
from embfit.type_hints import ChosenBy

log = logging.getLogger(__name__)


@task(outputs=("export",))
def export(
    model: Annotated[Pretrained, ChosenBy("a model of one vector a text")],
    run: RunFolder,
    devices: Devices,
    format: Literal["onnx", "openvino", "triton", "parquet"] = "onnx",
    name: str = "embfit",
    max_batch: Annotated[int, Field(ge=1)] = 64,
    version: str | None = None,
) -> None:
    """Write a model's graph into `export/` of the run folder, and check its vectors against PyTorch's in fp32.

    With `format=parquet`, write the vectors, texts and metadata of a bundle's version; no model is needed.

    Args:
        model: the model to export.
        run: the run folder, which gets `export/`.
        devices: the first device, a CPU, does the conversion.
        format: `onnx` or `openvino`, a model folder with the graph in it; `triton`, a repository of models; or
            `parquet`.
        name: the prefix of the models' names in a repository.
        max_batch: the largest batch of a repository's graph.
        version: for `parquet`: a bundle's folder, which means its champion, or `FOLDER@VERSION`.

    Raises:
        ConfigError: the packages for the conversion are missing, the model would not run in PyTorch on a CPU, or no
            version is named.
        UserError: the model cannot be converted, its graph gives other vectors, or it has a query adapter; or there is
            no such version, or its index keeps no vectors.
    """
    folder = run.dir / "export"
    if format == "parquet":
        with run.stage("export"):
            _write_documents(version, folder)
        print(f"export  {folder}")
        return
    from embfit.model.export import write_graph_folder, write_triton_repository

    if devices.first != "cpu" or model.backend != "torch":
        raise ConfigError("task=export converts on a CPU from PyTorch; set trainer=cpu and model.backend=torch")
    with run.stage("load model"):
        encoder = model.load(devices.first)
        if encoder.query_adapter is not None:
            raise UserError(
                f"{encoder.source} has a query adapter, which tells queries from documents as no graph here "
                "does; serve it with task=serve"
            )
    with run.stage("export"):
        if format == "triton":
            manifest = write_triton_repository(encoder, folder, name, max_batch)
        else:
            manifest = write_graph_folder(encoder, folder, format)
    distance = manifest["checked"]["largest_distance"]
    log.info("the graph's vectors are PyTorch's, to %.1e of their length", distance)
    print(f"export  {folder}")


def _write_documents(version: str | None, folder: Path) -> None:
    """Write the documents of a bundle's version as Parquet."""
    if not version:
        raise ConfigError("task.version is not set; name a bundle's folder: task.version=bundles/docs, or …/docs@3")
    bundle, which = split_version(version)
    source = BundleVersions(bundle.parent, bundle.name).path(which)
    folder.mkdir(exist_ok=True)
    manifest = write_parquet(source, folder / "documents.parquet", "writing documents")
    log.info("%s: %d documents of %d dimensions", manifest.label, manifest.documents.count, manifest.model.width)
