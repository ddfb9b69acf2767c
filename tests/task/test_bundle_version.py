"""An index that does not suit a model is refused by the model's files, before anything is read or computed."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from embfit.bundle import BundleSettings
from embfit.errors import ConfigError, UserError
from embfit.index import ApproximateBuilder, AutoBuilder, FunnelBuilder, IndexBuilder, TokenBuilder
from embfit.model import Encoder, EncoderChoice, LateInteraction, Pretrained, save_encoder
from embfit.task.bundle_version import check_index
from tests.conftest import new_encoder, new_late_encoder

DOCS = BundleSettings(name="docs")


@pytest.mark.parametrize(
    ("kind", "index", "told"),
    [
        (Pretrained, TokenBuilder(), r"index=tokens is for one vector a token, and this model gives one a text"),
        (Pretrained, FunnelBuilder(64), r"index\.dims=64 exceeds the vectors' 32 dimensions; lower it"),
        (LateInteraction, ApproximateBuilder("hnsw"), r"an approximate index holds one vector a document"),
        (LateInteraction, FunnelBuilder(8), r"a funnel holds one vector a document, and these have several"),
    ],
)
def test_an_index_that_does_not_suit_the_model(
    kind: type[EncoderChoice],
    index: IndexBuilder,
    told: str,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_encoder(new_encoder(tokenizer) if kind is Pretrained else new_late_encoder(tokenizer), tmp_path / "model")
    monkeypatch.setattr(Encoder, "__init__", lambda *_, **__: pytest.fail("the model was loaded"))
    model = kind(str(tmp_path / "model"))
    with pytest.raises(UserError, match=told):
        check_index(index, model, DOCS)
    check_index(AutoBuilder(), model, DOCS)


def test_candidates_from_words_need_words() -> None:
    told = r"index.candidates=bm25 needs .* bundle.words=false leaves out; set bundle.words=true"
    with pytest.raises(ConfigError, match=told):
        check_index(TokenBuilder(candidates="bm25"), LateInteraction(None), BundleSettings(name="docs", words=False))
