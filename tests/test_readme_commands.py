"""Every command of the README runs, in the README's order, on tiny models and collections."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest
from transformers import PreTrainedTokenizerFast

from embfit.app import main
from tests.data.test_hub import readme
from tests.task.conftest import ALL_TEXTS, SPLITS, write_command
from tests.test_front_door import commands

pytestmark = pytest.mark.slow

ELSEWHERE = ("serve", "generator=local")
"""A server does not end, and no query of a tiny language model passes the filters: their own tests run them."""
RUN = [words for words in commands() if not set(words) & set(ELSEWHERE)]
QUICK = ["trainer=cpu", "training.steps=2", "evaluator.resamples=200"]
INSTEAD = {
    "evaluator.dims=[64,128,384]": "evaluator.dims=[8,16,32]",
    "model.lora.rank=16": "model.lora.rank=4",
    "training.epochs=1": "",  # the steps say when to end
    "training.batch_size=256": "training.batch_size=16",
    "trainer=gpu": "",
}


class Home(NamedTuple):
    """What the README's capital words stand for."""

    beir: Path
    hub: Path
    documents: Path
    pairs: Path
    clicks: Path
    code: Path
    encoder: Path

    def typed(self, words: list[str]) -> list[str]:
        """Return a command of the README with these paths, a tiny model, and a collection where it names none."""
        data = next((word.partition("=")[2] for word in words if word.startswith("data=")), "")
        paths = {
            "data.path=DIR": f"data.path={self.documents if data == 'documents' else self.beir}",
            "data.path=FILE": f"data.path={self.clicks if data == 'clicks' else self.pairs}",
            "data.path=SRC": f"data.path={self.code}",
            "data.name=BeIR/scifact": f"data.name={self.hub}",
            "model.path=FOLDER": f"model.path={self.encoder}",
        }
        typed = [INSTEAD.get(word, paths.get(word, word)) for word in words]
        if not any(word.startswith("model.path=") for word in typed):
            typed.append(f"model.path={self.encoder}")
            typed += [] if "model=cross-encoder" in words else ["model.sha256=null"]  # it is that of MiniLM's weights
        typed.append("model.document_length=48" if "experiment=colbert" in words else "model.max_length=48")
        if not data:
            typed += ["data=beir", f"data.path={self.beir}"]
        return [word for word in [*typed, *QUICK] if word]


@pytest.fixture(scope="module")
def home(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("home")
    write_command(folder, tokenizer)
    documents, code = folder / "documents", folder / "code"
    documents.mkdir()
    code.mkdir()
    pairs, clicks = [], []
    for row, text in enumerate(ALL_TEXTS):
        words = text.split()
        rest = " ".join(reversed(words))
        (documents / f"{row}.md").write_text(f"# {text}\n\nIt is said of {text} that {rest}, whatever it means.\n")
        told = f'"""{text.capitalize()}.\n\n    {rest}.\n    """'
        (code / f"module_{row}.py").write_text(f"def tell_{row}():\n    {told}\n")
        pairs.append({"query": " ".join(words[2:6]) + f" {words[-1]}", "positive": text})
        clicks.append({"query": pairs[-1]["query"], "document": text, "clicks": 9, "impressions": 10})
        clicks.append({"query": pairs[-1]["query"], "document": ALL_TEXTS[row - 1], "clicks": 0, "impressions": 90})
    _write_as_on_the_hub(folder / "collection", folder / "hub")
    for name, rows in (("pairs", pairs), ("clicks", clicks)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    return Home(
        folder / "collection",
        folder / "hub",
        documents,
        folder / "pairs.jsonl",
        folder / "clicks.jsonl",
        code,
        folder / "tiny",
    )


def _write_as_on_the_hub(beir: Path, folder: Path) -> None:
    """Write a collection in the BEIR layout as a data set of the Hub: with a card, and judgements as records."""
    (folder / "qrels").mkdir(parents=True)
    for table in ("corpus", "queries"):
        (folder / f"{table}.jsonl").write_text((beir / f"{table}.jsonl").read_text())
    for split, rows in SPLITS.items():
        judged = [{"query-id": f"q{row}", "corpus-id": f"d{row}", "score": 1.0} for row in rows]
        (folder / "qrels" / f"{split}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in judged))
    files = {"default": {split: f"qrels/{split}.jsonl" for split in SPLITS}}
    files |= {table: {table: f"{table}.jsonl"} for table in ("corpus", "queries")}
    (folder / "README.md").write_text(readme(**files))


@pytest.mark.parametrize("words", RUN, ids=" ".join)
def test_every_command_of_the_readme_runs(
    words: list[str], home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home.beir.parent / "work")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(home.typed(words)) == 0, capsys.readouterr().err
