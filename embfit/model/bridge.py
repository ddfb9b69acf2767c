"""A bridge: a linear map of a new model's vectors into an older model's space, whose index can then still be used.

It is ridge regression (Hoerl and Kennard 1970) in closed form, shrunk towards the identity if both models have the same
width, as a fine-tuned model and its base do, else towards zero. The penalty is chosen by cross-validation: by the mean
cosine with the older model's vectors on texts that were left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from embfit.errors import UserError
from embfit.model.bi_encoder import BiEncoder
from embfit.model.projection import UnitLength
from embfit.model.query_adapter import as_projection
from embfit.vectors import unit_length

FOLDS = 5
PENALTIES = tuple(
    10.0 ** (step / 2) for step in range(-10, 7)
)  # relative to the mean eigenvalue of the texts' covariance


@dataclass(frozen=True, eq=False)
class Bridge:
    """A fitted map.

    Args:
        matrix: [D_new, D_old] float32; rows of the new model's vectors are multiplied by it.
        penalty: the ridge penalty, relative to the mean eigenvalue of the texts' covariance.
        agreement: the mean cosine of mapped vectors with the older model's, over texts that were left out.
        unmapped: the same for the unmapped vectors; None if the widths differ.
        texts: the number of texts that it was fitted on.
    """

    matrix: np.ndarray
    penalty: float
    agreement: float
    unmapped: float | None
    texts: int


def fit_bridge(
    new: np.ndarray, old: np.ndarray, seed: int = 0, folds: int = FOLDS, penalties: Sequence[float] = PENALTIES
) -> Bridge:
    """Fit a map on vectors of the same texts.

    Args:
        new: [N, D_new], the new model's vectors.
        old: [N, D_old], the older model's vectors.
        seed: the seed of the folds.
        folds: the number of folds, each of which is left out once.
        penalties: the penalties to choose from.

    Raises:
        UserError: there are fewer than two texts for each fold, or a vector is not finite.
    """
    count = len(new)
    if count < 2 * folds:
        raise UserError(
            f"{count} texts are too few to fit a bridge on, {2 * folds} at least; bring more training queries, or "
            "raise task.documents"
        )
    x, y = new.astype(np.float64), old.astype(np.float64)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise UserError(
            "a vector is not finite (NaN or infinity), so no bridge can be fitted; another precision may do"
        )
    fold_of = np.random.default_rng(seed).permutation(count) % folds
    covariance, product = x.T @ x, x.T @ y
    cosines = np.zeros(len(penalties))
    for fold in range(folds):
        out = fold_of == fold
        without = _Ridge(covariance - x[out].T @ x[out], product - x[out].T @ y[out])
        cosines += [_cosines(x[out] @ without.matrix(penalty), y[out]).sum() for penalty in penalties]
    best = int(np.argmax(cosines))
    return Bridge(
        matrix=_Ridge(covariance, product).matrix(penalties[best]).astype(np.float32),
        penalty=penalties[best],
        agreement=float(cosines[best] / count),
        unmapped=float(_cosines(x, y).mean()) if x.shape[1] == y.shape[1] else None,
        texts=count,
    )


def bridged(encoder: BiEncoder, matrix: np.ndarray, normalize: bool) -> BiEncoder:
    """Return an encoder that applies a map to all vectors at the end, and shares the weights.

    Args:
        encoder: the new model.
        matrix: [D_new, D_old].
        normalize: whether the older model's vectors have unit length.

    Raises:
        UserError: the encoder has a query adapter, after which no map for queries and documents can be applied.
    """
    if encoder.query_adapter is not None:
        raise UserError(
            f"{encoder.source} has a query adapter, which leaves the index of its own base valid, so it needs no "
            "bridge to that; for another index bridge from its base"
        )
    between = [UnitLength()] if encoder.normalizes else []
    head = [*encoder.head, *between, as_projection(torch.from_numpy(matrix))]
    made = BiEncoder(
        encoder.backbone,
        encoder.tokenizer,
        replace(encoder.settings, normalize=normalize),
        head,
        encoder.source,
        encoder.further_devices,
    )
    made.graph = encoder.graph
    return made.to(encoder.device).eval()


class _Ridge:
    """The solutions for every penalty, from one decomposition of XᵀX [D_new, D_new] and XᵀY [D_new, D_old]."""

    def __init__(self, covariance: np.ndarray, product: np.ndarray) -> None:
        self._values, self._axes = np.linalg.eigh(covariance)
        width_in, width_out = product.shape
        self._towards = np.eye(width_in) if width_in == width_out else np.zeros((width_in, width_out))
        self._turned = self._axes.T @ (product - covariance @ self._towards)

    def matrix(self, penalty: float) -> np.ndarray:
        """Return T + (XᵀX + λI)⁻¹ Xᵀ(Y - XT), where T is the identity or zero."""
        scaled = penalty * max(float(self._values.mean()), np.finfo(np.float64).tiny)
        found: np.ndarray = self._towards + self._axes @ (self._turned / (self._values + scaled)[:, None])
        return found


def _cosines(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair of rows ([N])."""
    cosines: np.ndarray = np.einsum("nd,nd->n", unit_length(found), unit_length(wanted))
    return cosines
