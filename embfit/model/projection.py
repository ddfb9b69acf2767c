"""The layers after the backbone or the pooling of some encoders: dense layers, and normalisation between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from embfit.errors import UserError

ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    "Tanh": nn.Tanh,
    "Identity": nn.Identity,
    "ReLU": nn.ReLU,
    "GELU": nn.GELU,
}


class Projection(nn.Module):
    """A dense layer (the `Dense` of sentence-transformers and PyLate): [N, in] → [N, out].

    Args:
        config: the layer's `config.json`; with `use_residual` the input is added to the output, through a second matrix
            if the widths differ.

    Raises:
        UserError: the activation is unknown.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        activation = str(config["activation_function"]).rsplit(".", 1)[-1]
        if activation not in ACTIVATIONS:
            raise UserError(
                f"the activation {activation!r} of a Dense module is not supported; known: {', '.join(ACTIVATIONS)}"
            )
        self.linear = nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
        self.activation = ACTIVATIONS[activation]()
        self.use_residual = bool(config.get("use_residual", False))
        if self.use_residual and config["in_features"] != config["out_features"]:
            self.residual = nn.Linear(config["in_features"], config["out_features"], bias=False)

    @property
    def description(self) -> str:
        """The layer's settings, which the weights do not contain."""
        return type(self.activation).__name__ + (" with residual" if self.use_residual else "")

    def forward(self, vectors: Tensor) -> Tensor:
        """Project [N, in] to [N, out]."""
        projected: Tensor = self.activation(self.linear(vectors))
        if not self.use_residual:
            return projected
        added: Tensor = self.residual(vectors) if hasattr(self, "residual") else vectors
        return projected + added


class UnitLength(nn.Module):
    """Normalisation before a dense layer (sentence-transformers' `Normalize`): [N, D] → [N, D]."""

    description = "UnitLength"

    def forward(self, vectors: Tensor) -> Tensor:
        """Divide each vector by its length."""
        return functional.normalize(vectors, dim=-1)
