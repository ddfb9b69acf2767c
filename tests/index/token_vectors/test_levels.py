"""Tables of levels are those of the literature, and bytes hold what was packed."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from embfit.index.token_vectors.levels import digits_per_byte, fit_levels, pack, unpacked


@pytest.mark.parametrize(
    ("count", "positive"),
    [(3, [1.2240]), (4, [0.4528, 1.5104]), (8, [0.2451, 0.7560, 1.3439, 2.1520])],
)
def test_levels_of_a_normal_distribution_are_those_of_max(count: int, positive: list[float]) -> None:
    """Max (1960), table I."""
    shares = (np.arange(20_000) + 0.5) / 20_000
    levels = fit_levels(np.array([NormalDist().inv_cdf(share) for share in shares]), count)
    np.testing.assert_allclose(levels[-len(positive) :], positive, rtol=0.003)
    np.testing.assert_allclose(levels, -levels[::-1], atol=1e-3)


def test_levels_meet_values_of_as_many_kinds() -> None:
    np.testing.assert_allclose(fit_levels(np.array([3.0, -1.0, 0.5, 3.0, -1.0]), 3), [-1, 0.5, 3])
    np.testing.assert_array_equal(fit_levels(np.zeros(5), 4), np.zeros(4))


@pytest.mark.parametrize(("levels", "per_byte"), [(16, 2), (4, 4), (3, 5)])
@pytest.mark.parametrize("dim", [1, 5, 48, 128])
def test_unpacked_bytes_are_what_was_packed(levels: int, per_byte: int, dim: int) -> None:
    digits = np.random.default_rng(dim).integers(0, levels, (7, dim)).astype(np.uint8)
    packed = pack(digits, levels)
    assert digits_per_byte(levels) == per_byte
    assert packed.shape == (7, -(-dim // per_byte))
    np.testing.assert_array_equal(unpacked(levels)[packed].reshape(7, -1)[:, :dim], digits)
