"""The query adapter: it changes queries alone, leaves what documents have valid, and is saved as others load it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from embfit.errors import ConfigError, UserError
from embfit.loss import InfoNCE, MarginMSE
from embfit.miner.no_negatives import NoNegatives
from embfit.model import BiEncoder, Encoder, LoRA, Pretrained, QueryAdapterSettings, embed, encoder_at, save_encoder
from embfit.model.query_adapter import LowRankMap, as_projection
from embfit.records import DevQuality
from embfit.store import Store
from embfit.tokens import concatenate
from embfit.training import Training, query_adapter
from embfit.training.grouping import Batching
from embfit.training.query_adapter import fit_query_adapter
from embfit.vectors import unit_length
from tests.conftest import TEXTS, make_collection, new_encoder

MATRIX = torch.eye(32) + 0.3 * torch.randn(32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def plain(tokenizer: PreTrainedTokenizerFast) -> BiEncoder:
    return new_encoder(tokenizer, query_prompt="q ")


@pytest.fixture
def adapted(tokenizer: PreTrainedTokenizerFast) -> BiEncoder:
    encoder = new_encoder(tokenizer, query_prompt="q ")
    encoder.query_adapter = as_projection(MATRIX)
    return encoder


def test_it_changes_queries_alone(plain: BiEncoder, adapted: BiEncoder) -> None:
    assert np.array_equal(adapted.encode(TEXTS, "document"), plain.encode(TEXTS, "document"))
    wanted = unit_length(plain.encode(TEXTS, "query") @ MATRIX.numpy())
    assert np.allclose(adapted.encode(TEXTS, "query"), wanted, atol=1e-6)
    assert adapted.fingerprint("document") == plain.fingerprint("document")
    assert adapted.fingerprint("query") != plain.fingerprint("query")
    before = adapted.fingerprint("query")
    adapted.query_adapter = as_projection(MATRIX.T.contiguous())
    assert adapted.fingerprint("query") != before


def test_a_batch_of_queries_and_documents(adapted: BiEncoder) -> None:
    both = concatenate([adapted.tokenize(TEXTS[:3], "query"), adapted.tokenize(TEXTS[3:6], "document")])
    found = adapted.encode_tokens(both).rows
    assert np.allclose(found[:3], adapted.encode(TEXTS[:3], "query"), atol=1e-6)
    assert np.allclose(found[3:], adapted.encode(TEXTS[3:6], "document"), atol=1e-6)


def test_sentence_transformers_loads_it(adapted: BiEncoder, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    save_encoder(adapted, tmp_path / "model")
    loaded = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert np.abs(loaded.encode_query(TEXTS) - adapted.encode(TEXTS, "query")).max() < 1e-5
    assert np.abs(loaded.encode_document(TEXTS) - adapted.encode(TEXTS, "document")).max() < 1e-5
    again = encoder_at(str(tmp_path / "model"), Pretrained(None, precision="fp32")).load("cpu")
    for kind in ("query", "document"):
        assert again.fingerprint(kind) == adapted.fingerprint(kind)


def test_other_routes_are_refused(adapted: BiEncoder, tmp_path: Path) -> None:
    save_encoder(adapted, tmp_path / "model")
    [path] = tmp_path.glob("model/*_Router/router_config.json")
    config = json.loads(path.read_text())
    config["structure"]["document"] = ["query_0_Dense"]
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match="these routes are not supported; those of a query adapter are"):
        Pretrained(str(tmp_path / "model")).load("cpu")


def test_what_it_cannot_go_with(plain: BiEncoder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.query_adapter\.rank=8 leaves the weights as they are"):
        Pretrained("x", query_adapter=QueryAdapterSettings(rank=8), lora=LoRA(rank=8))
    save_encoder(plain, tmp_path / "model")
    choice = Pretrained(str(tmp_path / "model"), normalize=False, query_adapter=QueryAdapterSettings(rank=8))
    with pytest.raises(UserError, match=r"needs vectors of unit length; set model\.normalize=true"):
        choice.load("cpu")


def test_the_low_rank_map() -> None:
    mapped = LowRankMap(6, 2, torch.Generator().manual_seed(0))
    vectors = torch.randn(3, 6)
    assert torch.equal(mapped(vectors), vectors)
    mapped.b.data.normal_()
    assert torch.allclose(mapped(vectors), vectors @ mapped.matrix(), atol=1e-6)
    assert int(torch.linalg.matrix_rank(mapped.matrix() - torch.eye(6))) == 2
    assert torch.allclose(as_projection(mapped.matrix())(vectors), mapped(vectors), atol=1e-6)


def test_training_learns_a_rotation(plain: Encoder, store: Store) -> None:
    """Each query's document is that of another sentence, which only a map of the queries can know."""
    count = len(TEXTS)
    queries = {f"q{row}": text for row, text in enumerate(TEXTS)}
    judged = {"train": {f"q{row}": {f"d{(row + 1) % count}": 1} for row in range(count)}}
    collection = make_collection({f"d{row}": text for row, text in enumerate(TEXTS)}, queries, judged)
    training_set = NoNegatives().mine(collection, plain, store)
    settings, training = QueryAdapterSettings(rank=16, lr=0.02, epochs=120), Training(batch_size=12)
    weights = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    documents = plain.fingerprint("document")
    found = fit_query_adapter(plain, InfoNCE(), training_set, settings, training, None, store)
    assert (found.steps, found.kept_step) == (120, 120)
    assert found.curve[-1]["loss"] < 0.2 < 1 < found.curve[0]["loss"]
    assert found.curve[0]["accuracy"] < 0.5 < found.curve[-1]["accuracy"] == 1
    scores = plain.encode(TEXTS, "query") @ plain.encode(TEXTS, "document").T
    assert scores.argmax(axis=1).tolist() == [(row + 1) % count for row in range(count)]
    assert plain.fingerprint("document") == documents
    assert all(torch.equal(tensor, weights[name]) for name, tensor in plain.state_dict().items() if name in weights)
    stored = embed(plain, collection, "document", store).vectors.rows
    assert np.array_equal(stored, plain.encode(TEXTS, "document"))


def test_the_best_epoch_is_kept_and_a_second_adapter_stands_behind_the_first(
    adapted: Encoder, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_adapter, "peak_bytes", lambda device: 3_000_000_000 if device.type == "cpu" else 0)
    queries = {f"q{row}": text for row, text in enumerate(TEXTS)}
    judged = {"train": {f"q{row}": {f"d{row}": 1} for row in range(len(TEXTS))}}
    collection = make_collection({f"d{row}": text for row, text in enumerate(TEXTS)}, queries, judged)
    values = iter([0.5, 0.4, 0.3])
    before = adapted.encode(TEXTS, "query")
    found = fit_query_adapter(
        adapted,
        InfoNCE(),
        NoNegatives().mine(collection, adapted, store),
        QueryAdapterSettings(rank=4, epochs=2),
        Training(batch_size=6),
        lambda change: DevQuality({"ndcg@10": next(values)}, []),
        store,
    )
    assert (found.kept_step, [one["ndcg@10"] for one in found.history]) == (0, [0.5, 0.4, 0.3])
    assert np.allclose(adapted.encode(TEXTS, "query"), before, atol=1e-6)  # the identity behind the old one
    assert found.peak_memory_gb == 3.0  # of the process, not what it has at the end


def test_batches_are_those_of_the_training(plain: Encoder, store: Store) -> None:
    """Queries of one document share a batch, in which there is nothing to tell it from."""
    documents = {f"d{row}": text for row, text in enumerate(TEXTS[:2])}
    judged = {"train": {f"q{row}": {f"d{row % 2}": 1} for row in range(len(TEXTS))}}
    collection = make_collection(documents, {f"q{row}": text for row, text in enumerate(TEXTS)}, judged)
    training_set = NoNegatives().mine(collection, plain, store)
    settings = QueryAdapterSettings(rank=2, epochs=1)

    def loss(batching: Batching) -> float:
        training = Training(batch_size=6, batching=batching)
        found = fit_query_adapter(plain, InfoNCE(), training_set, settings, training, None, store)
        return found.curve[0]["loss"]

    assert loss("by_document") == pytest.approx(0, abs=1e-6)
    assert loss("random") > 0.1
    with pytest.raises(UserError, match="the loss learns from a teacher's scores, and the training set has none"):
        fit_query_adapter(plain, MarginMSE(), training_set, settings, Training(batch_size=6), None, store)
