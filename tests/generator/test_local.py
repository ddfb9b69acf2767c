"""A local model writes queries: prompts, the journal, short memory, GGUF, and what cannot be."""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from embfit.errors import ConfigError, UserError
from embfit.generator import DocumentChoice, LocalGenerator
from embfit.generator.budget import Budget, Spending
from embfit.generator.decoding import CausalDecoding
from embfit.generator.journal import Journal
from embfit.generator.language_model import ModelFiles
from embfit.generator.local_writing import LocalWriting
from embfit.generator.prompt_pieces import PromptPieces, prompt_pieces
from embfit.generator.protocol import Generation, source_documents
from embfit.records import Collection
from embfit.store import Store
from embfit.style import FewShot, Style, StyleExample

CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"
STYLES = {"claim": Style("claim.md", 1.0, label="Claim"), "title": Style("title.md", 0.0, label="Title")}
EXAMPLES = [StyleExample("bees dance", "Bees tell the way by a dance.", "claim")]


def bytes_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer whose tokens are the bytes of a text."""
    letters = {
        "<s>": 0,
        "</s>": 1,
        **{byte: 2 + n for n, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))},
    }
    tokenizer = Tokenizer(models.BPE(letters, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def new_writer(folder: Path, positions: int = 4096) -> Path:
    """Save a two-layer language model with random weights."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"vocab_size": 258, "max_position_embeddings": positions}
    config = LlamaConfig(**sizes, initializer_range=0.3, eos_token_id=1)
    LlamaForCausalLM(config).save_pretrained(folder)
    bytes_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_writer(tmp_path_factory.mktemp("writer"))


def generator(writer: Path | str, **changed: Any) -> LocalGenerator:
    known = {
        "styles": STYLES,
        "model": str(writer),
        "queries": 3,
        "max_tokens": 8,
        "precision": "fp32",
        "device": "cpu",
    }
    return LocalGenerator(**{**known, **changed})


def written(made: LocalGenerator, collection: Collection, folder: Path) -> Generation:
    documents = source_documents(collection, range(6), DocumentChoice())
    return made.generate(collection, documents, folder / "generation")


def test_nothing_is_written_twice(
    writer: Path, small_collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    plain = CausalDecoding.sample

    def counted(self: CausalDecoding, prompts: Any, *others: Any) -> Any:
        read.append(len(prompts))
        if len(read) == 2:
            raise KeyboardInterrupt
        return plain(self, prompts, *others)

    monkeypatch.setattr(CausalDecoding, "sample", counted)
    made = generator(writer, batch_size=2, examples=FewShot(rotate=False))
    with pytest.raises(KeyboardInterrupt):
        written(made, small_collection, tmp_path)
    found = written(made, small_collection, tmp_path)
    assert sum(read) == 2 + 2 + 4  # the second batch was lost, and is written again
    assert (found.facts["requests"], found.facts["answered"]) == (6, 6)
    again = written(made, small_collection, tmp_path)
    assert sum(read) == 8
    assert again.queries == found.queries
    assert (
        made.estimate(
            small_collection, source_documents(small_collection, range(7), DocumentChoice()), tmp_path / "generation"
        ).answered
        == 6
    )


def test_an_encoder_and_a_decoder_write_queries(small_collection: Collection, tmp_path: Path) -> None:
    """They come with log-probabilities, do not depend on the batch, and are read from the journal afterwards."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 258, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    model = T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0, eos_token_id=1, pad_token_id=1))
    model.lm_head.weight.data.normal_(0, 0.5)
    model.save_pretrained(tmp_path / "t5")
    bytes_tokenizer().save_pretrained(tmp_path / "t5")
    made = generator(tmp_path / "t5", form="completion", batch_size=4, temperatures=[1.0])
    found = written(made, small_collection, tmp_path)
    assert (found.facts["requests"], found.facts["answered"]) == (6, 6)
    by_document = Counter(query.document.row for query in found.queries)
    assert set(by_document.values()) <= {1, 2, 3}
    assert len(by_document) == 6
    assert {query.style for query in found.queries} == {"claim"}
    assert all(query.log_probability is not None and query.log_probability < 0 for query in found.queries)
    assert written(made, small_collection, tmp_path).queries == found.queries  # from the journal
    alone = generator(tmp_path / "t5", form="completion", batch_size=1, temperatures=[1.0])
    assert [query.text for query in written(alone, small_collection, tmp_path / "alone").queries] == [
        query.text for query in found.queries
    ]


def test_processes_of_one_journal_share_the_work(
    writer: Path, small_collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    plain = CausalDecoding.sample

    def counted(self: CausalDecoding, prompts: Any, *others: Any) -> Any:
        read.append(len(prompts))
        return plain(self, prompts, *others)

    monkeypatch.setattr(CausalDecoding, "sample", counted)
    prompts, looks = [0], [0]
    around, answer = PromptPieces.around, Journal.answer

    def counted_prompt(self: PromptPieces, *rest: Any) -> Any:
        prompts[0] += 1
        return around(self, *rest)

    def counted_look(self: Journal, *rest: Any) -> Any:
        looks[0] += 1
        return answer(self, *rest)

    monkeypatch.setattr(PromptPieces, "around", counted_prompt)
    made = generator(writer, batch_size=2, examples=FewShot(rotate=False))
    documents = source_documents(small_collection, range(6), DocumentChoice())
    files = ModelFiles.find(str(writer), None, None, Store(tmp_path))
    requests = LocalWriting(made, files, small_collection).plan(documents)
    (tmp_path / "generation").mkdir()
    other = Journal(tmp_path / "generation" / "journal.sqlite")
    with ExitStack() as alive:
        alive.enter_context(other)
        other.plan([request.entry for request in requests], "other")
        claims = [other.claim(request.id, Spending(1), Budget(), "other") for request in requests[:2]]

        looked: list[int] = []

        def pass_time(_: float) -> None:
            """Have the other process work for three moments, answer a request, and end before it answers the other."""
            looked.append(looks[0])
            looks[0] = 0
            monkeypatch.setattr(Journal, "answer", counted_look)
            if len(looked) == 4:
                text = json.dumps([{"text": "by the other", "log_probability": -1.0, "finished": True}] * 3)
                other.record(claims[0].attempt or 0, "other", "answered", "answered", text)
            if len(looked) == 6:
                alive.close()

        monkeypatch.setattr("embfit.generator.writing_jobs.time.sleep", pass_time)
        found = written(made, small_collection, tmp_path)
    assert (found.facts["requests"], found.facts["answered"]) == (6, 6)
    assert sum(read) == 5
    assert prompts == [6]  # those of the other process's two documents were made once
    assert looked == [0, 0, 0, 0, 2, 0]  # the journal is looked into when the other process has changed it
    texts = {query.document.id: query.text for query in found.queries}
    assert [name for name, text in texts.items() if text == "by the other"] == ["d0"]


def test_queries_do_not_depend_on_batches_or_on_how_many_are_wanted(
    writer: Path, small_collection: Collection, tmp_path: Path
) -> None:
    whole = written(generator(writer), small_collection, tmp_path / "a").queries
    assert len({query.text for query in whole}) > 10
    assert {query.provenance["temperature"] for query in whole} == {0.5, 0.7, 1.0}
    assert all(query.log_probability is not None and query.log_probability < 0 for query in whole)
    fewer = written(generator(writer, queries=2, batch_size=1), small_collection, tmp_path / "b").queries
    texts = {(query.document.id, query.id.rpartition("-")[2]): query.text for query in whole}
    assert all(texts[query.document.id, query.id.rpartition("-")[2]] == query.text for query in fewer)
    other = written(generator(writer, seed=1), small_collection, tmp_path / "c").queries
    assert [query.text for query in other] != [query.text for query in whole]


def test_short_memory_halves_the_batch(
    writer: Path, small_collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    expected = written(generator(writer), small_collection, tmp_path / "a").queries
    plain = CausalDecoding.sample

    def small(self: CausalDecoding, prompts: Any, *others: Any) -> Any:
        if len(prompts) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return plain(self, prompts, *others)

    monkeypatch.setattr(CausalDecoding, "sample", small)
    assert written(generator(writer), small_collection, tmp_path / "b").queries == expected
    assert "memory is short for" in caplog.text


def test_prompts_of_a_base_model_and_of_one_that_follows_instructions() -> None:
    tokenizer = bytes_tokenizer()
    text = tokenizer.decode
    pieces = prompt_pieces("completion", STYLES["claim"], EXAMPLES, tokenizer, None)
    assert text(pieces.before) == "Document: Bees tell the way by a dance.\nClaim: bees dance\n\nDocument:"
    assert text(pieces.around("One two three", tokenizer, 8)) == " One two\nClaim:"
    assert tokenizer.eos_token_id not in pieces.around("the tag </s>", tokenizer, 20)
    tokenizer.chat_template = CHAT
    turns = prompt_pieces("chat", STYLES["claim"], EXAMPLES, tokenizer, "German")
    assert text(turns.before).count("<user>") == 2
    assert "<assistant>bees dance\n<user>Write one claim" in text(turns.before)
    assert "is in German" in text(turns.before)
    assert text(turns.after) == "\n<assistant>"
    alone = prompt_pieces("document", STYLES["claim"], EXAMPLES, tokenizer, None)
    assert (alone.before, alone.after) == ((), ())


@pytest.mark.parametrize(
    ("changed", "kind", "said"),
    [
        ({"model": None}, ConfigError, "generator=local needs a model: generator.model="),
        ({"model": "./nowhere"}, UserError, "./nowhere: there is no such folder"),
        ({"model": "./nowhere.gguf"}, UserError, "nowhere.gguf: there is no such GGUF file"),
        ({"form": "chat"}, UserError, "the model's tokenizer has no chat template"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(
    writer: Path, small_collection: Collection, tmp_path: Path, changed: dict[str, Any], kind: type, said: str
) -> None:
    with pytest.raises(kind) as caught:
        written(generator(writer, **changed), small_collection, tmp_path)
    assert said in str(caught.value)


def test_a_file_that_is_no_gguf_is_named(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF and then nothing")
    with pytest.raises(UserError, match=r"broken\.gguf: no GGUF file that transformers can read"):
        ModelFiles.find(str(file), None, None, Store(tmp_path / "store"))


def test_time_is_foretold_by_that_of_written_queries(
    writer: Path, small_collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = CausalDecoding.sample

    def slow(self: CausalDecoding, prompts: Any, *others: Any) -> Any:
        time.sleep(0.1)
        return plain(self, prompts, *others)

    monkeypatch.setattr(CausalDecoding, "sample", slow)
    made = generator(writer, batch_size=2, examples=FewShot(rotate=False))
    seconds = written(made, small_collection, tmp_path).facts["seconds_per_request"]
    documents = source_documents(small_collection, range(12), DocumentChoice())
    estimate = made.estimate(small_collection, documents, tmp_path / "generation")
    assert (estimate.requests, estimate.answered) == (12, 6)
    assert estimate.minutes is not None
    assert 0.05 * 6 <= estimate.minutes * 60 <= (seconds + 0.001) * 6


def test_what_writes_and_what_it_is_asked_for_are_part_of_a_request(writer: Path, small_collection: Collection) -> None:
    documents = source_documents(small_collection, [0], DocumentChoice())

    def request(label: str = "Claim", **changed: Any) -> str:
        styles = {"claim": Style("claim.md", label=label)}
        made = generator(writer, styles=styles, **changed)
        return LocalWriting(made, ModelFiles("tiny", writer, "digest"), small_collection).plan(documents)[0].id

    assert request(form="chat") != request("Statement", form="chat")
    assert request() != request("Statement")
    assert request() != request(precision="bf16")
    assert request() == request(batch_size=1)
