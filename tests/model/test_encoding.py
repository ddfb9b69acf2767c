"""Encoding goes on where it was left, and parts make the same matrix as one process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embfit.errors import UserError
from embfit.model import Encoder, embed, encoding, multiprocess_encoding
from embfit.model import encoder as encoder_module
from embfit.model.encoding import encode_into, new_matrix
from embfit.records import Collection
from embfit.run.child_process import ChildProcess
from embfit.store import Store
from embfit.tokens import Tokens
from tests.conftest import TEXTS


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "default_token_budget", lambda device: 40)
    monkeypatch.setattr(encoding, "SECONDS", 0.0)  # each batch is noted at once


class Crash(Exception):  # noqa: N818  # it is none of the library's
    """Stands for the end of the process."""


def crash_after(encoder: Encoder, batches: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let an encoder compute so many batches; returns the sizes of what it computed."""
    computed: list[int] = []
    forward = encoder.forward

    def counted(*arguments: object) -> object:
        if len(computed) == batches:
            raise Crash
        computed.append(len(arguments[0]))  # type: ignore[arg-type]  # token ids
        return forward(*arguments)  # type: ignore[arg-type]  # the same

    monkeypatch.setattr(encoder, "forward", counted)
    return computed


def test_what_was_encoded_is_not_encoded_again(
    small_collection: Collection, make_encoder: Callable[..., Encoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = embed(make_encoder(), small_collection, "document", Store(tmp_path / "whole")).vectors.rows
    encoder, store = make_encoder(), Store(tmp_path / "crashed")
    first = crash_after(encoder, 3, monkeypatch)
    with pytest.raises(Crash):
        embed(encoder, small_collection, "document", store)
    assert not list(store.dir.glob("embeddings/*/key.json"))
    monkeypatch.undo()
    monkeypatch.setattr(encoder_module, "default_token_budget", lambda device: 40)
    second = crash_after(encoder, 99, monkeypatch)
    matrix = embed(encoder, small_collection, "document", Store(store.dir)).vectors.rows
    np.testing.assert_array_equal(matrix, whole)
    assert sum(first) + sum(second) == len(TEXTS)
    assert len(first) == 3
    assert [path.name for path in (store.dir / "embeddings").iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("parts", [2, 3, 40])
def test_parts_make_the_same_matrix(tiny_encoder: Encoder, tmp_path: Path, parts: int) -> None:
    tokens = tiny_encoder.tokenize(TEXTS, "document")
    whole = tiny_encoder.encode_tokens(tokens).rows
    new_matrix(tmp_path, (len(tokens), 32))
    for part in reversed(range(parts)):
        new_matrix(tmp_path, (len(tokens), 32))  # whoever comes first makes it
        encode_into(tmp_path, tiny_encoder, tokens, tiny_encoder.plan(tokens), "embedding", part, parts)
    np.testing.assert_array_equal(np.load(tmp_path / "matrix.npy"), whole)
    counted = [json.loads(path.read_text())["batches"] for path in tmp_path.glob("encoded-*.json")]
    assert sum(counted) == len(tiny_encoder.plan(tokens))


def test_tokens_written_in_blocks_are_the_tokens(tiny_encoder: Encoder, tmp_path: Path) -> None:
    expected = tiny_encoder.tokenize(TEXTS * 3, "query")
    blocks = [tiny_encoder.tokenize(TEXTS, "query") for _ in range(3)]
    Tokens.save_blocks(iter(blocks), tmp_path)
    found = Tokens.load(tmp_path)
    for name in ("ids", "starts", "truncated"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert getattr(found, name).dtype == getattr(expected, name).dtype
    (tmp_path / "none").mkdir()
    Tokens.save_blocks(iter(()), tmp_path / "none")
    assert len(Tokens.load(tmp_path / "none")) == 0


def test_two_processes_make_the_same_matrix(
    small_collection: Collection, make_encoder: Callable[..., Encoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the other process's own budget is another, as on another device: it has no say
    whole = embed(make_encoder(), small_collection, "document", Store(tmp_path / "one")).vectors.rows
    monkeypatch.setattr(multiprocess_encoding, "SHARED_FROM", 1)
    encoder = make_encoder()
    encoder.further_devices = ("cpu",)
    store = Store(tmp_path / "two")
    shared = embed(encoder, small_collection, "document", store).vectors.rows
    np.testing.assert_allclose(shared, whole, rtol=0, atol=1e-6)  # threads differ, and with them the last bit
    (entry,) = (path for path in (store.dir / "embeddings").iterdir() if path.is_dir())
    assert sorted(path.name for path in entry.iterdir()) == ["key.json", "matrix.npy"]


def test_another_plan_is_not_gone_on_with(
    small_collection: Collection, make_encoder: Callable[..., Encoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, store = make_encoder(), Store(tmp_path)
    with monkeypatch.context() as patch:
        crash_after(encoder, 3, patch)
        with pytest.raises(Crash):
            embed(encoder, small_collection, "document", store)
    monkeypatch.setattr(encoder_module, "default_token_budget", lambda device: 90)  # of another device
    again = crash_after(encoder, 99, monkeypatch)
    matrix = embed(encoder, small_collection, "document", store).vectors.rows
    assert sum(again) == len(TEXTS)
    expected = encoder.encode(small_collection.document_texts(), "document")
    np.testing.assert_allclose(matrix, expected, atol=1e-6)


def test_a_row_without_a_vector_is_no_finished_matrix(
    small_collection: Collection, make_encoder: Callable[..., Encoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, store = make_encoder(), Store(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(multiprocess_encoding, "plan_batches", lambda lengths, budget: [np.arange(5)])
        with pytest.raises(UserError, match=f"{len(TEXTS) - 5} of {len(TEXTS)} texts have no vector, .* row 5"):
            embed(encoder, small_collection, "document", store)
    matrix = embed(encoder, small_collection, "document", store).vectors.rows
    np.testing.assert_array_equal(matrix, encoder.encode(small_collection.document_texts(), "document"))


def test_a_process_that_fails_is_named_and_nothing_is_lost(
    small_collection: Collection, make_encoder: Callable[..., Encoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(multiprocess_encoding, "SHARED_FROM", 1)
    encoder, store = make_encoder(), Store(tmp_path)
    encoder.further_devices = ("nonsense",)
    with pytest.raises(UserError, match=r"process 1 of 2 failed while encoding: .*nonsense.*process-1\.txt"):
        embed(encoder, small_collection, "document", store)
    encoder.further_devices = ()
    whole = encoder.encode(small_collection.document_texts(), "document")
    np.testing.assert_array_equal(embed(encoder, small_collection, "document", store).vectors.rows, whole)


def test_a_process_that_the_system_kills_is_told_as_that(
    small_collection: Collection, make_encoder: Callable[..., Encoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(module: str, arguments: list[str], words: Path) -> ChildProcess:
        words.touch()
        return ChildProcess(subprocess.Popen([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]), words)

    monkeypatch.setattr(multiprocess_encoding, "SHARED_FROM", 1)
    monkeypatch.setattr(ChildProcess, "start", start)
    encoder = make_encoder()
    encoder.further_devices = ("cpu",)
    expected = r"process 1 of 2 failed while encoding: it was killed by signal 9 .* lower trainer\.devices \("
    with pytest.raises(UserError, match=expected):
        embed(encoder, small_collection, "document", Store(tmp_path))


@pytest.mark.parametrize("other", ["batches", "lengths"])
def test_a_plan_is_known_by_its_batches_and_their_lengths(tiny_encoder: Encoder, tmp_path: Path, other: str) -> None:
    """The first plan is done as far as it goes; of the second one nothing is."""
    tokens, plan = tiny_encoder.tokenize(TEXTS[:4], "document"), [np.array([0, 1]), np.array([2, 3])]
    new_matrix(tmp_path, (4, 32))
    encode_into(tmp_path, tiny_encoder, tokens, plan, "embedding")
    if other == "batches":
        plan = [np.array([0, 2]), np.array([1, 3])]
    else:
        tokens = tiny_encoder.tokenize(TEXTS[4:8], "document")
    (tmp_path / "matrix.npy").unlink()
    new_matrix(tmp_path, (4, 32))
    encode_into(tmp_path, tiny_encoder, tokens, plan, "embedding")
    expected = tiny_encoder.encode_tokens(tokens).rows
    np.testing.assert_allclose(np.load(tmp_path / "matrix.npy"), expected, atol=1e-6)
