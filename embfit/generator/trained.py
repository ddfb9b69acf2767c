"""Queries by a small language model that is first trained on the team's own pairs."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from embfit.atomic_files import complete, write_text
from embfit.errors import ConfigError, UserError
from embfit.generator.language_model import ModelFiles, check_length, load_language_model
from embfit.generator.local import LocalGenerator
from embfit.generator.local_settings import LanguageModelSettings
from embfit.generator.plan import SourceDocument
from embfit.generator.prompt_pieces import prompt_pieces
from embfit.generator.protocol import Estimate, Generation
from embfit.generator.writer_checkpoint import WriterCheckpoints
from embfit.generator.writer_loss import WrittenPair
from embfit.generator.writer_training import WriterSettings, train_writer
from embfit.model.lora import LoRA, attach, merge
from embfit.model.precision import choose_device, uses_bf16
from embfit.records import Collection
from embfit.store import Store, digest
from embfit.style import FewShot, Style, StyleExample

log = logging.getLogger(__name__)

VERSION = 3  # of the training: another version trains on the same pairs again
KIND = "query-writers"  # of entries in the store
STYLE = "own"  # the only style: that of the pairs
FACTS = "training.json"
CHECKPOINT = Path("checkpoint", "step.pt")  # in the entry, while its model is trained
FEWEST_PAIRS = 10


@dataclass(frozen=True, kw_only=True)
class TrainedGenerator(LanguageModelSettings):
    """Trains a causal language model on the collection's training pairs, and writes queries with it.

    Queries of evaluation splits, and documents that are relevant to one, are not used in training. A tenth of the
    documents is held out for early stopping.

    `LanguageModelSettings` documents how the trained model writes.

    Args:
        pairs: the number of training pairs to use, drawn with the seed; None for all.
        label: the label of queries in the text that the model continues.
        epochs: the most passes over the pairs; training ends early when the loss of the held-out pairs rises.
        lr: the peak learning rate; an adapter needs about twice as much.
        pairs_per_step: the approximate number of queries in an optimizer step.
        held_out: the share of the documents that decide which weights are kept.
        lora: trains an adapter (`rank`) instead of all weights.
    """

    pairs: Annotated[int, Field(ge=FEWEST_PAIRS)] | None = None
    label: str = "Query"
    epochs: Annotated[int, Field(ge=1)] = 2
    lr: Annotated[float, Field(gt=0)] = 1e-4
    pairs_per_step: Annotated[int, Field(ge=1)] = 16
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.1
    lora: LoRA = field(default_factory=LoRA)

    @property
    def name(self) -> str:
        """The generator's name in the provenance of queries."""
        return f"trained ({self.model})"

    @property
    def style(self) -> Style:
        """The style of the pairs: a completion without examples."""
        return Style(template="question.md", label=self.label)

    def example_pool(self, collection: Collection) -> list[StyleExample]:
        """Return no examples, since the model was trained on the pairs."""
        return []

    def estimate(self, collection: Collection, documents: Sequence[SourceDocument], folder: Path) -> Estimate:
        """Estimate what queries about some documents would take, without training the model.

        Raises:
            ConfigError: no model is named.
            UserError: there are too few training pairs, or there is no such model.
        """
        store = Store(folder.parent)
        base, pairs, key = self._training(collection, store)
        files = ModelFiles(f"{base.name}, trained", base.folder, digest({**key, "version": VERSION}))
        found = self._writer.estimate_with(files, collection, documents, folder)
        if store.has(KIND, key, version=VERSION):
            return found
        return replace(found, pairs=sum(len(queries) for _, queries in pairs.values()))

    def generate(self, collection: Collection, documents: Sequence[SourceDocument], folder: Path) -> Generation:
        """Train the model, unless the store has it, and return its queries about some documents.

        Raises:
            ConfigError: no model is named.
            UserError: there are too few training pairs, or the model cannot be loaded or trained.
        """
        files = self.trained_model(collection, Store(folder.parent))
        made = self._writer.generate_with(files, collection, documents, folder, is_trained=True)
        trained = json.loads((files.folder / FACTS).read_text(encoding="utf-8"))
        return Generation(made.queries, {**made.facts, **trained}, made.examples)

    @property
    def _writer(self) -> LocalGenerator:
        same = {one.name: getattr(self, one.name) for one in fields(LanguageModelSettings)}
        return LocalGenerator(styles={STYLE: self.style}, form="completion", examples=FewShot(count=0), **same)

    def trained_model(self, collection: Collection, store: Store) -> ModelFiles:
        """Return the trained model, from the store if it was trained with the same pairs and settings before.

        Raises:
            ConfigError: no model is named.
            UserError: there are too few training pairs, or the model cannot be loaded or trained.
        """
        base, pairs, key = self._training(collection, store)

        def build(entry: Path) -> None:
            try:
                if not (entry / FACTS).is_file():  # else an interrupted build has left all but the checkpoint's removal
                    self._train(base, pairs, entry)
            except UserError:
                shutil.rmtree(entry / CHECKPOINT.parent, ignore_errors=True)  # other settings are another training
                raise
            shutil.rmtree(entry / CHECKPOINT.parent, ignore_errors=True)

        folder = store.entry(KIND, key, build, version=VERSION, resumable=True)
        return ModelFiles(f"{base.name}, trained", folder, digest({**key, "version": VERSION}))

    def _training(
        self, collection: Collection, store: Store
    ) -> tuple[ModelFiles, dict[int, tuple[str, list[str]]], dict[str, Any]]:
        """Return the base model, its training pairs by document row, and all that the trained model depends on."""
        if self.model is None:
            raise ConfigError("generator=trained needs a model: generator.model=FOLDER_OR_FILE.gguf_OR_NAME")
        base = ModelFiles.find(self.model, self.revision, self.gguf, store)
        pairs = own_pairs(collection, self.pairs, self.seed)
        texts = {str(row): [document, *queries] for row, (document, queries) in pairs.items()}
        key = {
            "model": base.digest,
            "pairs": digest(texts),
            "template": self.style.continuation.digest,
            "settings": [self.label, self.epochs, self.lr, self.pairs_per_step, self.held_out],
            "lengths": [self.document_tokens, self.max_tokens],
            "lora": None
            if self.lora.rank is None
            else [self.lora.rank, self.lora.alpha, self.lora.dropout, self.lora.seed],
            "targets": self.lora.targets,
            "precision": self.precision,
            "seed": self.seed,
        }
        return base, pairs, key

    def tokenized(self, pairs: Mapping[int, tuple[str, Sequence[str]]], tokenizer: Any) -> list[WrittenPair]:
        """Return the tokens of pairs.

        Args:
            pairs: documents with their queries, as `own_pairs` returns them.
            tokenizer: the model's tokenizer.
        """
        pieces = prompt_pieces("completion", self.style, [], tokenizer, None)
        found = []
        for document, queries in pairs.values():
            prompt = [*pieces.before, *pieces.around(document, tokenizer, self.document_tokens)]
            written = [tokenizer(f" {query}\n", add_special_tokens=False)["input_ids"] for query in queries]
            found.append(WrittenPair(prompt, [tokens[: self.max_tokens] for tokens in written]))
        return found

    def _train(self, base: ModelFiles, pairs: dict[int, tuple[str, list[str]]], folder: Path) -> None:
        device = choose_device(self.device)
        model, tokenizer, is_seq_to_seq = load_language_model(base.folder, torch.float32)
        if is_seq_to_seq:
            raise UserError(
                f"{base.name} has an encoder and a decoder; generator=trained needs a causal model: set generator.model"
            )
        model.to(device)
        if self.lora.rank is not None:
            attach(model, self.lora, 0, base.name, self.revision, "generator.lora")
        made = self.tokenized(pairs, tokenizer)
        longest = max(len(pair.prompt) for pair in made) + self.max_tokens
        check_length(model, base.name, longest, self.document_tokens)
        order = np.random.default_rng(self.seed).permutation(len(made)).tolist()
        cut = min(round(self.held_out * len(made)), len(made) - 1)  # at least one document stays for training
        held_out, trained = [made[place] for place in order[:cut]], [made[place] for place in order[cut:]]
        count = sum(len(pair.queries) for pair in trained)
        log.info("training %s to write queries: %d pairs of %d documents", base.name, count, len(trained))
        settings = WriterSettings(self.epochs, self.pairs_per_step, self.lr, seed=self.seed)
        checkpoints = WriterCheckpoints(folder / CHECKPOINT)
        facts = train_writer(model, trained, held_out, settings, uses_bf16(self.precision, device), checkpoints)
        if self.lora.rank is not None:
            merge(model)
        model.to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        complete(folder)  # the facts, which come last, say that the rest is there
        facts = {"trained_on_pairs": count, "trained_on_documents": len(trained), **facts}
        write_text(folder / FACTS, json.dumps(facts))


def own_pairs(collection: Collection, most: int | None, seed: int) -> dict[int, tuple[str, list[str]]]:
    """Return documents with the training queries about them, by row.

    Documents that are relevant to a query of another split are left out, and so are their copies.

    Args:
        collection: has the pairs.
        most: the most pairs, drawn with the seed; None for all.
        seed: draws them.

    Raises:
        UserError: there are too few.
    """
    copies, rows = collection.document_copies, collection.document_rows
    evaluated = {
        int(copies[rows[document]])
        for split, judged in collection.qrels.items()
        if split != "train"
        for grades in judged.values()
        for document, grade in grades.items()
        if grade >= 1
    }
    found: list[tuple[int, int]] = []
    for query, grades in sorted(collection.qrels.get("train", {}).items()):
        relevant = sorted({int(copies[rows[document]]) for document, grade in grades.items() if grade >= 1})
        found += [(collection.query_rows[query], row) for row in relevant if row not in evaluated]
    if most is not None and len(found) > most:
        drawn = np.random.default_rng(seed).permutation(len(found))[:most]
        found = [found[place] for place in sorted(drawn.tolist())]
    if len(found) < FEWEST_PAIRS:
        raise UserError(
            f"{collection.name} has {len(found)} training pairs with documents that are not relevant in another split; "
            f"generator=trained needs at least {FEWEST_PAIRS}; use generator=local, or label some"
        )
    by_row: dict[int, list[int]] = {}
    for query_row, document_row in found:
        by_row.setdefault(document_row, []).append(query_row)
    documents = list(by_row)
    texts = collection.document_texts(documents)
    return {
        row: (" ".join(text.split()), [" ".join(query.split()) for query in collection.query_texts(by_row[row])])
        for row, text in zip(documents, texts, strict=True)
    }
