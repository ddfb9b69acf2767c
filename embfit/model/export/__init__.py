"""Models as graphs for other servers: ONNX, OpenVINO, and repositories of Triton."""

from embfit.model.export.graph_folder import write_graph_folder
from embfit.model.export.triton import write_triton_repository

__all__ = ["write_graph_folder", "write_triton_repository"]
