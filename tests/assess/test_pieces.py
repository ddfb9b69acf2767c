from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from embfit.assess.chunking import compare_chunks, piece_sizes
from embfit.assess.pieces import cut, evaluate_pieces
from embfit.errors import ConfigError
from embfit.evaluator import Retrieval
from embfit.model import Encoder
from embfit.store import Store
from tests.assess.contexts import context
from tests.conftest import TEXTS

LONG = " ".join(TEXTS[:6])
DOCUMENTS = {"long": LONG, "short": TEXTS[7], "other": TEXTS[9]}
QUERIES = {"a": "insulin lowers the sugar", "b": "kidneys filter the blood"}
GRADES = {"a": {"long": 1}, "b": {"short": 1}}


def test_pieces_hold_the_whole_text_and_fit(tiny_encoder: Encoder, store: Store) -> None:
    collection = context(tiny_encoder, store, DOCUMENTS, QUERIES, GRADES, {"long": "Body"}).collection
    pieces = cut(tiny_encoder, collection, [0, 1, 2], 32)
    first, second, third, end = pieces.starts
    assert end == len(pieces.texts)
    assert (second, third, len(pieces.texts)) == (second, second + 1, second + 2)
    of_long = pieces.texts[first:second]
    assert all(piece.startswith("Body ") for piece in of_long)
    words = " ".join(piece.removeprefix("Body ") for piece in of_long)
    assert "".join(words.split()) == "".join(LONG.split())  # a cut within a word leaves no letter out
    assert max(tiny_encoder.tokenize(pieces.texts, "document").lengths) <= 32
    assert not tiny_encoder.tokenize(pieces.texts, "document").truncated.any()
    assert pieces.texts[second] == TEXTS[7]


def test_a_document_scores_as_its_best_piece(tiny_encoder: Encoder, store: Store) -> None:
    made = context(tiny_encoder, store, DOCUMENTS, QUERIES, GRADES)
    found = evaluate_pieces("pieces", made, np.arange(3), 32)
    pieces = cut(tiny_encoder, made.collection, [0, 1, 2], 32)
    scores = tiny_encoder.encode(list(QUERIES.values()), "query") @ tiny_encoder.encode(pieces.texts, "document").T
    for query, row in zip(QUERIES, scores, strict=True):
        expected = {
            id: max(row[start:end])
            for id, start, end in zip(DOCUMENTS, pieces.starts[:-1], pieces.starts[1:], strict=True)
        }
        assert dict(found.ranking.documents[query]) == pytest.approx(expected, abs=1e-5)
    assert found.facts["pieces"] == len(pieces.texts)


def test_a_query_that_is_a_document_does_not_find_itself(tiny_encoder: Encoder, store: Store) -> None:
    grades = {"long": {"short": 1}}
    made = context(tiny_encoder, store, DOCUMENTS, {"long": LONG}, grades)
    assert evaluate_pieces("pieces", made, np.arange(3), 32).ranking.documents["long"][0][0] == "long"
    alone = replace(made.collection, exclude_self=True)
    without = Retrieval(metrics=["ndcg@10"], depth=10).context(alone, store, made.model, load=lambda: tiny_encoder)
    found = [id for id, _ in evaluate_pieces("pieces", without, np.arange(3), 32).ranking.documents["long"]]
    assert sorted(found) == ["other", "short"]


def test_chunks_are_compared_with_cutting_off(tiny_encoder: Encoder, store: Store) -> None:
    documents = DOCUMENTS | {f"d{place}": text for place, text in enumerate(TEXTS[:6])}
    made, evaluator = context(tiny_encoder, store, documents, QUERIES, GRADES), Retrieval(resamples=200)
    found = compare_chunks(made, [32, 16], 5, evaluator.compare_all)
    assert found["documents"] == 5  # two judged ones and three others
    assert [one["name"] for one in found["settings"]] == ["cut off", "pieces of 32", "pieces of 16"]
    assert found["settings"][0]["pieces_per_document"] == 1
    assert "p" not in found["settings"][0]
    assert found["settings"][1]["difference"] == pytest.approx(
        found["settings"][1]["metrics"]["ndcg@10"] - found["settings"][0]["metrics"]["ndcg@10"]
    )
    first, second = (one["p"] for one in found["settings"][1:])
    small, large = sorted((first, second))
    corrected = {small: min(1.0, 2 * small), large: max(large, min(1.0, 2 * small))}
    assert [one["p_holm"] for one in found["settings"][1:]] == [corrected[first], corrected[second]]
    (alone,) = compare_chunks(made, [24], 2, evaluator.compare_all)["settings"][1:]
    assert (alone["tokens"], alone["p_holm"]) == (24, None)


def test_sizes_that_the_model_does_not_read_are_named(caplog: pytest.LogCaptureFixture) -> None:
    assert piece_sizes(None, 32) == [32, 16]
    assert not caplog.text
    assert piece_sizes([24, 999, 24], 32) == [24]
    assert "task.chunk_sizes: 999 is left out, because the model reads 32 tokens; raise model.max_length" in caplog.text
    with pytest.raises(
        ConfigError, match=r"task.chunk_sizes=\[999, 64\]: every size exceeds the 32 tokens that the model reads"
    ):
        piece_sizes([64, 999], 32)


def test_a_long_title_leaves_room_for_text(make_encoder: Callable[..., Encoder], store: Store) -> None:
    encoder = make_encoder()
    made = context(encoder, store, DOCUMENTS, QUERIES, GRADES, {"long": " ".join(TEXTS[:3])})
    pieces = cut(encoder, made.collection, [0], 32)
    assert 1 < len(pieces.texts) < len(LONG.split())
