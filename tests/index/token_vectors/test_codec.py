"""What a format keeps of vectors, in how many bytes, and that equal vectors become equal bytes."""

from __future__ import annotations

import numpy as np
import pytest

from embfit.index.token_vectors.centroids import NearestCentroid, centroids_for, train_centroids
from embfit.index.token_vectors.codec import TOKEN_FORMATS, DecodingMemory, TokenCodec, TokenFormat
from embfit.vectors import unit_length
from tests.index.token_vectors.conftest import texts

SAMPLE = texts([4000], width=32).rows


def fitted(form: TokenFormat, centroids: int = 64) -> TokenCodec:
    return TokenCodec.fit(form, SAMPLE, centroids, 0)


@pytest.mark.parametrize(
    ("dim", "form", "width"),
    [
        (128, "float16", 256), (128, "int8", 130), (128, "residual4", 66), (128, "residual2", 34), (128, "ternary", 28),
        (96, "residual2", 26), (64, "residual4", 34), (48, "ternary", 12),
    ],
)  # fmt: skip
def test_bytes_of_a_vector(dim: int, form: TokenFormat, width: int) -> None:
    sample = texts([1100], width=dim).rows
    centroids = 0 if form in ("float16", "int8") else 4
    assert TokenCodec.fit(form, sample, centroids, 0).width == width


def test_more_bytes_keep_more() -> None:
    vectors = texts([500], seed=7, width=32).rows
    errors = [
        float(np.linalg.norm(codec.decode(codec.encode(vectors)) - vectors, axis=1).mean())
        for codec in map(fitted, TOKEN_FORMATS)
    ]
    assert errors == sorted(errors)
    assert errors[0] < 5e-4
    assert errors[1] < 0.02
    assert errors[-1] < 0.5 * float(np.linalg.norm(vectors - fitted("ternary").centroids[0], axis=1).mean())  # type: ignore[index]


@pytest.mark.parametrize("form", ["residual4", "residual2", "ternary"])
def test_what_residual_formats_read_has_length_1(form: TokenFormat) -> None:
    codec = fitted(form)
    read = codec.decode(codec.encode(texts([300], seed=3, width=32).rows))
    np.testing.assert_allclose(np.linalg.norm(read, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("form", TOKEN_FORMATS)
def test_no_vectors_are_written_and_read(form: TokenFormat) -> None:
    codec = fitted(form)
    packed = codec.encode(np.empty((0, 32), np.float32))
    assert packed.shape == (0, codec.width)
    assert codec.decode(packed).shape == (0, 32)


@pytest.mark.parametrize("form", TOKEN_FORMATS)
@pytest.mark.parametrize("width", [32, 30])  # 30 values fill no whole number of bytes
def test_memory_that_is_used_again_gives_the_same_vectors(form: TokenFormat, width: int) -> None:
    codec = TokenCodec.fit(form, texts([1500], width=width).rows, 16, 0)
    packed = codec.encode(texts([300], seed=3, width=width).rows)
    memory = DecodingMemory()
    many = codec.decode(packed, memory)
    np.testing.assert_array_equal(many, codec.decode(packed))
    few = codec.decode(packed[:7], memory)
    np.testing.assert_array_equal(few, codec.decode(packed[:7]))
    assert np.shares_memory(few, many)


@pytest.mark.parametrize("form", TOKEN_FORMATS)
def test_a_vector_becomes_the_same_bytes_wherever_it_stands(form: TokenFormat) -> None:
    codec, vectors = fitted(form), texts([257], seed=5, width=32).rows
    together = codec.encode(np.concatenate([vectors, vectors[::-1]]))
    np.testing.assert_array_equal(together[:257], together[:256:-1])
    np.testing.assert_array_equal(together[:9], np.concatenate([codec.encode(vectors[i : i + 1]) for i in range(9)]))


def test_the_same_seed_fits_the_same_codec() -> None:
    one, other = fitted("residual2"), fitted("residual2")
    np.testing.assert_array_equal(one.encode(SAMPLE), other.encode(SAMPLE))


def test_int8_keeps_the_length_of_a_vector() -> None:
    vectors = np.array([[3.0, -4.0], [0.0, 0.0], [1e-3, 2e-3]], np.float32)
    codec = TokenCodec.fit("int8", vectors, 0, 0)
    np.testing.assert_allclose(codec.decode(codec.encode(vectors)), vectors, rtol=0.01)


def test_a_direction_alone_is_kept_of_unit_vectors_alone() -> None:
    with pytest.raises(
        ValueError, match="a vector of length 2 cannot be stored as ternary, which stores only directions"
    ):
        fitted("ternary").encode(2 * SAMPLE[:3])


def test_too_few_vectors_fit_no_table() -> None:
    with pytest.raises(ValueError, match=r"format=residual4 is fitted .* needs at least 1024, but there are 12"):
        TokenCodec.fit("residual4", SAMPLE[:12], 4, 0)


def test_the_nearest_centroid_is_the_nearest() -> None:
    centroids = train_centroids(SAMPLE, 64, 0)
    vectors = texts([300], seed=11, width=32).rows
    distances = np.linalg.norm(vectors[:, None].astype(float) - centroids[None].astype(float), axis=2)
    np.testing.assert_array_equal(NearestCentroid(centroids)(vectors), distances.argmin(axis=1))


def test_of_centroids_too_near_to_tell_the_same_one_is_taken() -> None:
    """Seven at one distance: more than the few that are compared again."""
    centroids = np.eye(7, dtype=np.float32)
    found = NearestCentroid(centroids)(unit_length(np.ones((50, 7), np.float32)))
    np.testing.assert_array_equal(found, np.zeros(50))


def test_centroids_are_distinct_and_no_more_than_there_are_vectors() -> None:
    copies = train_centroids(np.repeat(np.eye(4, dtype=np.float32), 30, axis=0), 16, 0)
    assert len(np.unique(copies, axis=0)) == len(copies) >= 4
    np.testing.assert_array_equal(train_centroids(np.eye(3, dtype=np.float32), 16, 0), np.eye(3)[::-1])


def test_a_seed_may_exceed_a_c_int() -> None:
    large = train_centroids(SAMPLE, 8, 5 + (1 << 31))
    np.testing.assert_array_equal(large, train_centroids(SAMPLE, 8, 5))


def test_there_are_up_to_eight_times_the_root_of_the_vectors() -> None:
    assert [centroids_for(count) for count in (0, 1, 100, 1_100_000, 10**9)] == [1, 8, 64, 8192, 65536]
