"""`task=export`: a model as a graph for other servers, held to PyTorch's vectors."""

from __future__ import annotations

import logging
from typing import Annotated, Literal

from pydantic import Field

from embfit.compose.tasks import task
from embfit.errors import ConfigError, UserError
from embfit.model import Pretrained
from embfit.run.devices import Devices
from embfit.run.folder import RunFolder

log = logging.getLogger(__name__)


@task(outputs=("export",))
def export(
    model: Pretrained,
    run: RunFolder,
    devices: Devices,
    format: Literal["onnx", "openvino", "triton"] = "onnx",
    name: str = "embfit",
    max_batch: Annotated[int, Field(ge=1)] = 64,
) -> None:
    """Write a model's graph into `export/` of the run folder; its vectors are those that PyTorch gives in fp32.

    Args:
        model: is exported.
        run: gets `export/`.
        devices: the first of them, a CPU, converts.
        format: `onnx` or `openvino`, a model folder with the graph in it; or `triton`, a repository of models.
        name: in a repository the models' names begin with it.
        max_batch: texts that a repository's graph computes at once.

    Raises:
        ConfigError: the packages that convert are not installed, or the model would not be PyTorch's on a CPU.
        UserError: the model cannot be converted, its graph gives other vectors, or it has a query adapter.
    """
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
    folder = run.dir / "export"
    with run.stage("export"):
        if format == "triton":
            manifest = write_triton_repository(encoder, folder, name, max_batch)
        else:
            manifest = write_graph_folder(encoder, folder, format)
    distance = manifest["checked"]["largest_distance"]
    log.info("the graph's vectors are PyTorch's, to %.1e of their length", distance)
    print(f"export  {folder}")
