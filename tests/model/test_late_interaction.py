"""Late-interaction encoders: how they read texts, and vectors equal to sentence-transformers' `MultiVectorEncoder`."""

from __future__ import annotations

import json
import logging
import string
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from transformers import BertModel, PreTrainedTokenizerFast

from embfit.compose.build import make
from embfit.compose.composition import compose
from embfit.compose.loader import make_loader
from embfit.errors import ConfigError, UserError
from embfit.model import Encoder, LateInteraction, LateInteractionEncoder, Pretrained, encoder_at, save_encoder
from embfit.model.late_interaction_folder import holds_late_interaction
from embfit.tokens import ATTENDED, SCORED
from tests.conftest import TEXTS, new_encoder, new_late_encoder, new_tokenizer
from tests.model.architectures import new_folder

HARD = [*TEXTS, "", ".,;!?", "the heart " * 60, "don't; stop-it (now)"]
BOTH = ATTENDED | SCORED


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bi-encoder, of which late-interaction models are made."""
    folder = tmp_path_factory.mktemp("plain")
    save_encoder(new_encoder(new_tokenizer()), folder)
    return folder


def made(plain: Path, **settings: object) -> LateInteractionEncoder:
    """Make a late-interaction model of the bi-encoder."""
    chosen = {"dim": 16, "query_length": 16, "document_length": 24, "precision": "fp32"} | settings
    return LateInteraction(str(plain), **chosen).load("cpu")  # type: ignore[arg-type]


def same_vectors(one: Encoder, other: Encoder) -> None:
    for kind in ("query", "document"):
        found, expected = one.embed(HARD, kind), other.embed(HARD, kind)
        assert found.counts.tolist() == expected.counts.tolist()
        np.testing.assert_array_equal(found.rows, expected.rows)


def as_theirs(encoder: Encoder, folder: Path) -> None:
    """Hold an encoder to what sentence-transformers makes of its folder."""
    sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6.0")
    theirs = sentence_transformers.MultiVectorEncoder(str(folder), device="cpu")
    for kind, encode in (("query", theirs.encode_query), ("document", theirs.encode_document)):
        expected = encode(HARD, convert_to_numpy=True)
        found = encoder.embed(HARD, kind)
        assert found.counts.tolist() == [len(vectors) for vectors in expected]
        np.testing.assert_allclose(found.rows, np.concatenate(expected), atol=1e-6)
    queries, documents = encoder.embed(HARD[:4], "query"), encoder.embed(HARD, "document")
    sums = theirs.similarity(theirs.encode_query(HARD[:4]), theirs.encode_document(HARD)).numpy()
    np.testing.assert_allclose(queries.scores(documents) * queries.counts[:, None], sums, atol=1e-5)


CONFIGURATIONS = {
    "default": {},
    "no expansion": {"expansion": "none"},
    "attended": {"attend_to_expansion": True},
    "no marker": {"query_marker": "", "document_marker": ""},
    "no marker, no expansion": {"query_marker": "", "document_marker": "", "expansion": "none"},
    "residual": {"head": "residual"},
    "nothing skipped": {"skip": "none"},
    "words skipped": {"skip": ["the", "of", "not-one-token"]},
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_vectors_are_those_of_sentence_transformers(name: str, plain: Path, tmp_path: Path) -> None:
    encoder = made(plain, **CONFIGURATIONS[name])
    save_encoder(encoder, tmp_path / "model")
    again = LateInteraction(str(tmp_path / "model"), precision="fp32").load("cpu")
    assert again.settings == encoder.settings
    same_vectors(again, encoder)
    as_theirs(encoder, tmp_path / "model")


@pytest.mark.parametrize("name", ["default", "no marker, no expansion", "attended", "residual", "words skipped"])
def test_the_layout_of_sentence_transformers_is_read(name: str, plain: Path, tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6.0")
    encoder = made(plain, **CONFIGURATIONS[name])
    save_encoder(encoder, tmp_path / "model")
    sentence_transformers.MultiVectorEncoder(str(tmp_path / "model"), device="cpu").save(str(tmp_path / "native"))
    assert "MultiVectorMask" in (tmp_path / "native" / "modules.json").read_text()
    back = LateInteraction(str(tmp_path / "native"), precision="fp32").load("cpu")
    assert back.settings == encoder.settings
    same_vectors(back, encoder)


@pytest.fixture
def stanford(plain: Path, tmp_path: Path) -> Path:
    """A folder in Stanford's layout: the projection among the weights, settings in `artifact.metadata`."""
    folder = tmp_path / "stanford"
    backbone = BertModel.from_pretrained(plain)
    backbone.save_pretrained(folder)
    new_tokenizer().save_pretrained(folder)
    words = json.loads((folder / "tokenizer.json").read_text())
    pieces = words["model"]["vocab"]
    pieces["[unused0]"], pieces["[unused1]"] = pieces.pop("##7"), pieces.pop("##8")
    (folder / "tokenizer.json").write_text(json.dumps(words))
    weights = {f"bert.{name}": value for name, value in load_file(folder / "model.safetensors").items()}
    torch.manual_seed(3)
    save_file({**weights, "linear.weight": torch.randn(8, 32)}, folder / "model.safetensors", {"format": "pt"})
    rewrite(folder / "config.json", architectures=["HF_ColBERT"])
    metadata = {
        "query_token_id": "[unused0]",
        "doc_token_id": "[unused1]",
        "query_maxlen": 14,
        "doc_maxlen": 20,
        "dim": 8,
    }
    (folder / "artifact.metadata").write_text(
        json.dumps({**metadata, "similarity": "cosine", "mask_punctuation": True})
    )
    return folder


def test_the_layout_of_stanford_is_read(stanford: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder = LateInteraction(str(stanford), precision="fp32").load("cpu")
    read = encoder.settings
    assert (read.query_length, read.document_length, read.query_marker, encoder.width) == (14, 20, "[unused0]", 8)
    assert not caplog.records  # nothing of the projection among the weights
    as_theirs(encoder, stanford)
    save_encoder(encoder, tmp_path / "saved")
    as_theirs(encoder, tmp_path / "saved")


def test_the_width_is_known_before_a_model_is_loaded(stanford: Path, plain: Path, tmp_path: Path) -> None:
    save_encoder(made(plain), tmp_path / "saved")
    for model, width in (
        (LateInteraction(str(stanford)), 8),
        (LateInteraction(str(tmp_path / "saved")), 16),
        (LateInteraction(str(plain)), 128),
        (LateInteraction(str(plain), dim=24), 24),
    ):
        assert model.width() == model.load("cpu").width == width
    assert Pretrained(str(plain)).width() == Pretrained(str(plain)).load("cpu").width == 32


def test_the_settings_of_a_folder_without_metadata_are_those_of_its_library(stanford: Path) -> None:
    (stanford / "artifact.metadata").unlink()
    read = LateInteraction(str(stanford)).load("cpu").settings
    assert (read.query_length, read.document_length, read.document_marker) == (32, 64, "[unused1]")  # 64 positions
    assert read.skip == tuple(string.punctuation)


def test_texts_are_read_as_the_paper_says(tokenizer: PreTrainedTokenizerFast) -> None:
    encoder = new_late_encoder(tokenizer, query_length=8)
    query, document = (encoder.tokenize(["the heart, often"], kind) for kind in ("query", "document"))
    words = tokenizer.convert_ids_to_tokens(query.ids.tolist())
    assert words == ["[CLS]", "q", "the", "heart", ",", "often", "[SEP]", "[MASK]"]
    assert query.roles is not None
    assert query.roles.tolist() == [*[BOTH] * 7, SCORED]
    assert tokenizer.convert_ids_to_tokens(document.ids.tolist()) == ["[CLS]", "d", *words[2:7]]
    assert document.roles is not None
    assert document.roles.tolist() == [BOTH, BOTH, BOTH, BOTH, ATTENDED, BOTH, BOTH]
    assert (encoder.vector_counts(query).tolist(), encoder.vector_counts(document).tolist()) == ([8], [6])
    long = encoder.tokenize(["the heart " * 60, ""], "document")
    assert (long.lengths.tolist(), long.truncated.tolist()) == ([24, 3], [True, False])
    assert encoder.tokenize([""], "query").lengths.tolist() == [8]


def test_a_document_of_many_tokens_is_cut_and_counted(tokenizer: PreTrainedTokenizerFast) -> None:
    encoder = new_late_encoder(tokenizer)
    vectors = encoder.embed(["heart " * 100_000, "heart"], "document")
    assert vectors.counts.tolist() == [24, 4]
    assert encoder.tokenize(["heart " * 100_000], "document").truncated.all()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_neither_padding_nor_batch_mates_change_vectors(attention: str, plain: Path) -> None:
    encoder = made(plain, attention=attention)
    together = encoder.embed(HARD, "document")
    for row, text in enumerate(HARD):
        alone = encoder.embed([text], "document")
        np.testing.assert_allclose(together.part(row, row + 1).rows, alone.rows, atol=1e-6)


def test_tokens_keep_their_roles_in_a_folder(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    from embfit.tokens import Tokens, concatenate

    encoder = new_late_encoder(tokenizer)
    parts = [encoder.tokenize(HARD[:5], "query"), encoder.tokenize(HARD[5:], "document")]
    whole = concatenate(parts)
    Tokens.save_blocks(iter(parts), tmp_path)
    loaded = Tokens.load(tmp_path)
    for tokens in (whole, loaded):
        assert tokens.roles is not None
        assert encoder.vector_counts(tokens).tolist() == [12] * 5 + encoder.vector_counts(parts[1]).tolist()
        np.testing.assert_array_equal(
            tokens.take([7, 0]).roles, np.r_[tokens.part(7, 8).roles, tokens.part(0, 1).roles]
        )
    ids, roles = loaded.padded(np.array([0, 5]), 0)
    assert roles.shape == ids.shape
    assert (roles > 0).sum(dim=1).tolist() == loaded.lengths[[0, 5]].tolist()


def test_fingerprints_tell_what_vectors_depend_on(tokenizer: PreTrainedTokenizerFast) -> None:
    def sides(**changes: object) -> tuple[str, str]:
        torch.manual_seed(0)
        encoder = new_late_encoder(tokenizer, **changes)
        torch.nn.init.constant_(encoder.head[0].linear.weight, 0.5)  # type: ignore[union-attr,arg-type]
        return encoder.fingerprint("query"), encoder.fingerprint("document")

    query, document = sides()
    assert query != document
    assert sides(training_document_length=8) == (query, document)  # of training alone
    for name, value in {
        "query_length": 10,
        "expansion": "none",
        "attend_to_expansion": True,
        "query_marker": "d",
    }.items():
        other = sides(**{name: value})
        assert other[0] != query, name
        assert other[1] == document, name
    for name, value in {"document_length": 30, "skip": ("the",), "document_marker": "q"}.items():
        other = sides(**{name: value})
        assert other[0] == query, name
        assert other[1] != document, name


def test_a_new_model_is_the_same_for_the_same_seed(plain: Path) -> None:
    one, other, another = made(plain), made(plain), made(plain, head_seed=1)
    same_vectors(one, other)
    assert np.abs(another.embed(TEXTS, "query").rows - one.embed(TEXTS, "query").rows).max() > 0.1
    table = one.backbone.get_input_embeddings().weight
    assert len(table) == len(one.tokenizer)  # type: ignore[arg-type]
    markers = [one.tokenizer.convert_tokens_to_ids(one.marker(kind)) for kind in ("query", "document")]
    assert (table[markers[0]] - table[markers[1]]).abs().max() > 1e-3  # type: ignore[index]


@pytest.mark.parametrize("choice", ["answerai-colbert-small", "colbertv2", "gte-moderncolbert"])
def test_published_models_are_what_their_folders_say(choice: str, stanford: Path, tmp_path: Path) -> None:
    folder = stanford
    if choice == "gte-moderncolbert":
        new_folder("gte-modernbert", tmp_path / "plain")
        folder = tmp_path / "pylate"
        save_encoder(made(tmp_path / "plain", document_length=40), folder)
    command = [f"model={choice}", f"model.path={folder}", "model.precision=fp32"]
    composed = OmegaConf.to_container(compose(make_loader(), command).model, resolve=True)
    encoder = make(composed, "model").load("cpu")
    assert (encoder.width, encoder.length("document")) == ((16, 40) if folder.name == "pylate" else (8, 20))
    as_theirs(encoder, folder)


def rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def saved(plain: Path, tmp_path: Path) -> Path:
    """A folder in PyLate's layout."""
    save_encoder(made(plain), tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        ("config_sentence_transformers.json", {"query_prefix": "[Z] "}, r"its marker '\[Z\] ' is no token"),
        ("config_sentence_transformers.json", {"prompts": {"query": "find: "}}, r"the prompt 'query' is read by"),
        ("config_sentence_transformers.json", {"pool_factor": 2}, r"does not know what pool_factor: 2 means"),
        ("1_Dense/config.json", {"in_features": 48}, r"the weights do not fit its config.json"),
        ("1_Dense/config.json", {"activation_function": "acme.Swirl"}, r"the activation 'Swirl' .* not supported"),
        ("modules.json", None, r"modules.json: the order of no module is not supported"),
    ],
)
def test_a_folder_that_cannot_be_read_is_refused(
    saved: Path, file: str, changes: dict[str, object] | None, said: str
) -> None:
    if changes is None:
        (saved / file).unlink()
    else:
        rewrite(saved / file, **changes)
    with pytest.raises(UserError, match=said):
        LateInteraction(str(saved)).load("cpu")


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (torch.full((16, 32), float("nan")), "a weight of its projection is not finite"),
        (torch.zeros(16, 48), "a layer of its projection reads 48 dimensions, and what comes before it gives 32"),
    ],
)
def test_a_projection_that_cannot_be_used_is_refused(saved: Path, weight: torch.Tensor, said: str) -> None:
    rewrite(saved / "1_Dense" / "config.json", in_features=weight.shape[1])
    save_file({"linear.weight": weight}, saved / "1_Dense" / "model.safetensors")
    with pytest.raises(UserError, match=said):
        LateInteraction(str(saved)).load("cpu")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dim": 32}, r"model.dim=32: .* has vectors of 16 dimensions; set model.dim=null"),
        ({"head": "residual"}, r"model.head=residual: .* has a linear projection; set model.head=null"),
        ({"query_marker": "q"}, r"model.query_marker='q': .* was trained with '\[Q\] '; set model.query_marker=null"),
        ({"query_length": 65}, r"model.query_length=65 exceeds the 64 positions"),
        ({"training_document_length": 30}, r"training_document_length=30 exceeds model.document_length=24; lower it"),
        ({"attention": "flash_attention_2"}, r"set model.attention=sdpa, model.expansion=none or"),
    ],
)
def test_what_contradicts_the_folder_is_refused(
    saved: Path, settings: dict[str, object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = BertModel.from_pretrained
    monkeypatch.setattr(  # no GPU here
        BertModel, "from_pretrained", lambda *of, **how: load(*of, **(how | {"attn_implementation": "sdpa"}))
    )
    with pytest.raises((ConfigError, UserError), match=said):
        LateInteraction(str(saved), **settings).load("cpu")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"document_length": 64, "training_document_length": 65}, "exceeds model.document_length=64"),
        ({"expansion": "none", "attend_to_expansion": True}, "nothing to attend to while model.expansion=none"),
        (
            {"expansion": "fixed", "attend_to_expansion": False, "attention": "flash_attention_2"},
            "computes nothing for tokens that are not attended to",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused_before_anything_is_loaded(
    settings: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        LateInteraction("nowhere", **settings)  # type: ignore[arg-type]


def test_lengths_may_differ_from_the_folders(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read = LateInteraction(str(saved), document_length=40, training_document_length=30).load("cpu").settings
    assert (read.document_length, read.training_document_length, read.query_length) == (40, 30, 16)
    assert [record.getMessage() for record in caplog.records] == [
        "model.document_length=40 contradicts the model's own folder, which says 24; using 40"
    ]


@pytest.mark.parametrize(
    ("choice", "settings", "said"),
    [
        ("qwen3-embedding-0.6b", {}, r"puts 0 tokens in front of a text, .* set model.query_marker=\"\""),
        ("qwen3-embedding-0.6b", {"query_marker": "", "document_marker": ""}, "padded on the left"),
    ],
)
def test_a_tokenizer_that_has_no_place_for_it_is_refused(
    choice: str, settings: dict[str, str], said: str, tmp_path: Path
) -> None:
    new_folder(choice, tmp_path / "model")
    with pytest.raises(UserError, match=said):
        LateInteraction(str(tmp_path / "model"), document_length=48, **settings).load("cpu")  # type: ignore[arg-type]


@pytest.mark.parametrize("choice", ["gte-modernbert", "bge-m3", "nomic-embed"])
def test_other_architectures(choice: str, tmp_path: Path) -> None:
    new_folder(choice, tmp_path / "plain")
    encoder = made(tmp_path / "plain", expansion="none" if choice == "bge-m3" else "fixed")
    save_encoder(encoder, tmp_path / "model")
    as_theirs(encoder, tmp_path / "model")


def test_what_lies_in_a_folder_says_which_encoder_it_is(saved: Path, plain: Path) -> None:
    like = Pretrained("anything", precision="fp32", attention="eager")
    late, one = encoder_at(str(saved), like), encoder_at(str(plain), LateInteraction("anything", precision="fp32"))
    assert isinstance(late, LateInteraction)
    assert (late.precision, late.attention) == ("fp32", "eager")
    assert isinstance(one, Pretrained)
    assert holds_late_interaction(saved)
    assert not holds_late_interaction(plain)
    with pytest.raises(UserError, match=rf"is a late-interaction model, .* choose model=colbert model.path={saved}"):
        Pretrained(str(saved)).load("cpu")


def test_an_adapter_alone_would_lack_the_markers(plain: Path, make_encoder: Callable[..., Encoder]) -> None:
    from embfit.model import LoRA

    pytest.importorskip("peft")
    choice = LateInteraction(str(plain), lora=LoRA(rank=2, merged=False))
    encoder = choice.load("cpu")
    with pytest.raises(UserError, match=r"whose base has no vectors of the markers; set model.lora.merged=true"):
        choice.check(encoder)


@pytest.mark.parametrize("marker", ["q", "heart"])
def test_a_marker_that_is_a_word_is_refused(marker: str, plain: Path) -> None:
    with pytest.raises(UserError, match=rf"the marker '{marker}' is a word of the vocabulary; name a token that no"):
        made(plain, query_marker=marker)


def test_skipped_words_are_those_of_the_vocabulary(tokenizer: PreTrainedTokenizerFast) -> None:
    encoder = new_late_encoder(tokenizer, skip=("the", "not-one-token", "."))
    assert encoder.reading("document", 24)["skipped"] == sorted(tokenizer.convert_tokens_to_ids(["the", "."]))
    assert set(string.punctuation) <= set(tokenizer.get_vocab())
