from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from embfit.errors import UserError
from embfit.model import CrossEncoder, Encoder, Pretrained, save_cross_encoder, save_encoder, score_pairs
from embfit.model.loading import Weights
from embfit.model.text_pairs import TextPairs
from embfit.records import Collection
from embfit.store import Store
from tests.conftest import TEXTS, new_ranker
from tests.model.architectures import new_folder

PAIRS = [(query, document) for query in (TEXTS[0], "blood and bile", "virus") for document in TEXTS]


def alone(ranker: CrossEncoder, query: str, document: str) -> float:
    """One pair, as the tokenizer and the model make it without any batch."""
    inputs = ranker.tokenizer(query, document, truncation=True, max_length=ranker.max_length, return_tensors="pt")
    with torch.inference_mode():
        logits = ranker.backbone(**inputs).logits[0]
    return float(logits[0] if len(logits) == 1 else logits[1] - logits[0])


@pytest.mark.parametrize("labels", [1, 2])
def test_scores_equal_those_of_each_pair_alone(tokenizer: PreTrainedTokenizerFast, labels: int) -> None:
    ranker = new_ranker(tokenizer, labels=labels)
    expected = [alone(ranker, *pair) for pair in PAIRS]
    assert np.std(expected) > 0.01
    np.testing.assert_allclose(ranker.score(PAIRS), expected, rtol=1e-5, atol=1e-5)


def test_scores_are_no_bf16_numbers(tokenizer: PreTrainedTokenizerFast) -> None:
    """Else close documents tie: a bf16 number has three digits."""
    ranker = new_ranker(tokenizer)
    plain = ranker.score(PAIRS)
    ranker.settings = replace(ranker.settings, precision="bf16")
    scores = ranker.score(PAIRS)
    assert 0.001 < np.abs(scores - plain).mean() < 0.2
    assert (torch.from_numpy(scores).bfloat16().float().numpy() != scores).mean() > 0.9


def test_no_pairs_have_no_scores(tiny_ranker: CrossEncoder) -> None:
    assert tiny_ranker.score([]).shape == (0,)


def test_pairs_of_all_queries_share_batches(tiny_ranker: CrossEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    tiny_ranker.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    tiny_ranker.score(PAIRS)
    assert sum(rows) == 36
    assert len(rows) < 3  # 36 pairs of at most 32 tokens: more than the 1,024 of one batch, less than two


def test_sentence_transformers_scores_the_same(tiny_ranker: CrossEncoder, tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    tiny_ranker.score(PAIRS[:2])
    save_cross_encoder(tiny_ranker, tmp_path / "ranker")
    theirs = sentence_transformers.CrossEncoder(str(tmp_path / "ranker"), device="cpu").predict(PAIRS)
    np.testing.assert_allclose(tiny_ranker.score(PAIRS), theirs, atol=1e-4)


def test_a_saved_ranker_is_the_same_one(tiny_ranker: CrossEncoder, tmp_path: Path) -> None:
    save_cross_encoder(tiny_ranker, tmp_path / "ranker")
    again = CrossEncoder.load(tmp_path / "ranker", precision="fp32", device="cpu")
    assert (again.max_length, again.trained) == (32, True)
    assert again.fingerprint == tiny_ranker.fingerprint
    np.testing.assert_array_equal(again.score(PAIRS), tiny_ranker.score(PAIRS))


def test_a_fresh_head_is_drawn_by_its_seed(tiny_encoder: Encoder, tmp_path: Path) -> None:
    save_encoder(tiny_encoder, tmp_path / "encoder")
    one, same, other = (
        CrossEncoder.load_weights(Weights(str(tmp_path / "encoder")), None, "fp32", "cpu", fresh_head=seed)
        for seed in (0, 0, 1)
    )
    assert not one.trained
    assert one.fingerprint == same.fingerprint != other.fingerprint
    body = {name.removeprefix("bert."): weight for name, weight in one.backbone.state_dict().items()}
    for name, weight in tiny_encoder.backbone.state_dict().items():
        torch.testing.assert_close(body[name], weight)


def test_an_encoder_without_a_head_is_no_ranker(tiny_encoder: Encoder, tmp_path: Path) -> None:
    save_encoder(tiny_encoder, tmp_path / "encoder")
    with pytest.raises(UserError, match="without a classification head"):
        CrossEncoder.load(tmp_path / "encoder")


def test_a_classifier_of_three_classes_is_no_ranker(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    config = BertConfig(vocab_size=300, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, num_labels=3)
    BertForSequenceClassification(config).save_pretrained(tmp_path / "classes")
    tokenizer.save_pretrained(tmp_path / "classes")
    with pytest.raises(UserError, match="tells 3 classes apart"):
        CrossEncoder.load(tmp_path / "classes")


@pytest.mark.parametrize(("length", "message"), [(65, "exceeds the 64 positions"), (7, "raise it to 8 or more")])
def test_impossible_lengths_are_refused(tiny_ranker: CrossEncoder, tmp_path: Path, length: int, message: str) -> None:
    save_cross_encoder(tiny_ranker, tmp_path / "ranker")
    with pytest.raises(UserError, match=message):
        CrossEncoder.load(tmp_path / "ranker", max_length=length)


def test_scores_are_kept_under_weights_and_texts(
    tiny_ranker: CrossEncoder, small_collection: Collection, store: Store
) -> None:
    rows = np.array([[0, 3], [1, 2], [0, 3], [5, 5]])
    scores = score_pairs(tiny_ranker, small_collection, rows, store)
    queries, documents = list(small_collection.query_texts()), list(small_collection.document_texts())
    expected = [alone(tiny_ranker, queries[query], documents[document]) for query, document in rows]
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    again = score_pairs(tiny_ranker, small_collection, rows, store)
    assert store.built == ["scores"]
    np.testing.assert_array_equal(again, scores)
    with torch.no_grad():
        tiny_ranker.backbone.classifier.bias += 1  # other weights: the kept scores are not theirs
    np.testing.assert_allclose(score_pairs(tiny_ranker, small_collection, rows, store), scores + 1, atol=1e-5)
    assert store.built == ["scores", "scores"]


def test_scores_are_of_the_queries_and_length_asked_for(
    tiny_ranker: CrossEncoder, small_collection: Collection, store: Store
) -> None:
    rows = np.array([[0, 3], [1, 2]])
    first = score_pairs(tiny_ranker, small_collection, rows, store)
    others = small_collection.queries.map(lambda row: {"text": f"{row['text']} kidneys"})
    changed = score_pairs(tiny_ranker, replace(small_collection, queries=others), rows, store)
    tiny_ranker.settings = replace(tiny_ranker.settings, max_length=10)
    cut = score_pairs(tiny_ranker, small_collection, rows, store)
    assert np.abs(changed - first).min() > 1e-4
    assert np.abs(cut - first).min() > 1e-4


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pairs rankers were given to score, each time."""
    counts: list[int] = []
    read = CrossEncoder.read

    def count(ranker: CrossEncoder, pairs: Sequence[tuple[str, str]]) -> TextPairs:
        counts.append(len(pairs))
        return read(ranker, pairs)

    monkeypatch.setattr(CrossEncoder, "read", count)
    return counts


def test_a_ranker_is_no_encoder(tiny_ranker: CrossEncoder, tmp_path: Path) -> None:
    save_cross_encoder(tiny_ranker, tmp_path / "ranker")
    with pytest.raises(UserError, match="is a cross-encoder, which scores pairs and embeds no text"):
        Pretrained(str(tmp_path / "ranker")).load("cpu")


def all_pairs(queries: int, documents: int) -> np.ndarray:
    return np.stack(np.divmod(np.arange(queries * documents), documents), axis=1)


def test_only_pairs_that_are_new_are_scored(
    tiny_ranker: CrossEncoder, small_collection: Collection, store: Store, asked: list[int]
) -> None:
    score_pairs(tiny_ranker, small_collection, all_pairs(4, 6), store)
    more = all_pairs(6, 9)
    found = score_pairs(tiny_ranker, small_collection, more, Store(store.dir))
    assert asked == [4 * 6, 6 * 9 - 4 * 6]
    max_parallel = score_pairs(tiny_ranker, small_collection, more, Store(enabled=False))
    np.testing.assert_allclose(found, max_parallel, atol=1e-5)
    assert np.ptp(found) > 0.1
    entry = next(store.dir.glob("scores/*/scores.npy")).parent
    assert sorted(path.name for path in entry.iterdir()) == ["key.json", "scores.npy"]


def test_what_was_scored_before_an_interruption_is_kept(
    tiny_ranker: CrossEncoder,
    small_collection: Collection,
    store: Store,
    asked: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = all_pairs(6, 9)
    done: list[int] = []
    compute = CrossEncoder.score_batch

    def interrupted(ranker: CrossEncoder, pairs: TextPairs, chosen: np.ndarray, bf16: bool) -> np.ndarray:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(len(chosen))
        return compute(ranker, pairs, chosen, bf16)

    monkeypatch.setattr("embfit.model.cross_encoder.default_token_budget", lambda device: 200)  # several batches
    monkeypatch.setattr("embfit.model.scoring.SECONDS", 0.0)  # and a file for each
    monkeypatch.setattr(CrossEncoder, "score_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        score_pairs(tiny_ranker, small_collection, rows, store)
    monkeypatch.setattr(CrossEncoder, "score_batch", compute)
    assert len(list(store.dir.glob("scores/*/added-*.npy"))) == len(done) == 3
    found = score_pairs(tiny_ranker, small_collection, rows, Store(store.dir))
    assert asked == [len(rows), len(rows) - sum(done)]
    np.testing.assert_allclose(found, score_pairs(tiny_ranker, small_collection, rows, Store(enabled=False)), atol=1e-5)


@pytest.mark.parametrize("has_padding", [True, False])
def test_a_decoder_scores_a_pair_alike_in_any_batch(tmp_path: Path, has_padding: bool) -> None:
    """It scores a pair's last token, which it finds by the padding id: the tokenizer's, whatever config.json says."""
    folder = new_folder("qwen3-embedding-0.6b", tmp_path / "decoder")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": 4}))
    if not has_padding:
        said = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(
            json.dumps({name: value for name, value in said.items() if name != "pad_token"})
        )
    ranker = CrossEncoder.load_weights(Weights(str(folder)), None, "fp32", "cpu", fresh_head=0)
    together = ranker.score(PAIRS)
    assert np.std(together) > 0.001
    np.testing.assert_allclose([ranker.score([pair])[0] for pair in PAIRS], together, rtol=1e-5, atol=1e-5)


def test_a_score_that_is_no_number_is_an_error(tiny_ranker: CrossEncoder) -> None:
    with torch.no_grad():
        tiny_ranker.backbone.classifier.bias += torch.nan
    with pytest.raises(UserError, match=r"tiny: 3 of 3 scores are no numbers; set its precision to fp32"):
        tiny_ranker.score(PAIRS[:3])
