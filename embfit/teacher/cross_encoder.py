"""A teacher that needs no published model: a cross-encoder that is trained on the training pairs themselves.

Promptagator++ and UDAPDR train one on synthetic queries (Dai et al. 2022; Saad-Falcon et al. 2023): reading query and
document together, it ranks better than an encoder trained on the same pairs.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field
from torch import nn

from embfit.atomic_files import write_text
from embfit.evaluator.judging import judge
from embfit.evaluator.metrics import VALIDATION_METRIC
from embfit.evaluator.systems import EvaluationContext
from embfit.evaluator.systems.reranked import reranking_on_dev
from embfit.model import CrossEncoder, load_teacher, save_cross_encoder
from embfit.model.precision import Precision
from embfit.model.pretrained_cross_encoder import PretrainedCrossEncoder
from embfit.model.settings import Attention
from embfit.model.teacher import FOLDS, write_assignment
from embfit.random_streams import random_stream
from embfit.records import Seed, TrainingSet
from embfit.store import digest
from embfit.teacher.trained import TrainedTeacher
from embfit.training import ListTraining
from embfit.training.batches import ExampleArrays
from embfit.training.folds import folds_of
from embfit.type_hints import Having, Location

if TYPE_CHECKING:
    import pytorch_lightning as pl

log = logging.getLogger(__name__)

VERSION = 1  # of the training: raised if the same pairs give other weights
MODEL, FACTS = "model", "model.json"  # in the store's entry
MODULE = frozenset(vars(nn.Module()))  # attributes that PyTorch adds to every module
CANDIDATES = "base"  # the system whose documents are reranked in a validation


@dataclass(frozen=True, kw_only=True)
class CrossEncoderTeacher:
    """Trains a cross-encoder on lists of positives and mined negatives, and scores all of them with it.

    The trained model is kept in the store under a key of the pairs and all settings.

    Args:
        loss: the loss on its scores.
        training: the settings of its training; with `training.folds` no query is scored by a model trained on it.
        path: the initial model: a ranker, or any encoder, which gets a new head; None is the encoder that it teaches.
        revision: branch, tag or commit of `path` on the Hub.
        max_length: the tokens that it reads of a pair; None is the model's own limit, at most 512.
        attention: which of transformers' implementations computes attention.
        precision: the number format in which it computes.
        trust_remote_code: whether Python code that comes with the model is run.
        lists: the number of training queries, drawn with the seed; None for all.
        dev_depth: the number of documents that are reranked in a validation.
        weight: the factor of its scores when they are added to those of the miner.
        seed: the seed of a new head and of all draws.
    """

    gives_scores: ClassVar[bool] = True

    loss: Annotated[nn.Module, Having("on_lists")]
    training: ListTraining
    path: Annotated[str | None, Location()] = None
    revision: str | None = None
    max_length: Annotated[int, Field(ge=8)] | None = 256
    attention: Attention = "auto"
    precision: Precision = "auto"
    trust_remote_code: bool = False
    lists: Annotated[int, Field(ge=1)] | None = 3000
    dev_depth: Annotated[int, Field(ge=1)] = 20
    weight: Annotated[float, Field(gt=0)] = 1.0
    seed: Seed = 0

    def learn(
        self,
        training_set: TrainingSet,
        context: EvaluationContext,
        dev: EvaluationContext | None,
        trainer: partial[pl.Trainer],
    ) -> TrainedTeacher:
        """Train a cross-encoder, unless the store has it; arguments as `Teaches.learn`.

        Raises:
            UserError: the initial model cannot be loaded, or no query has a negative.
        """
        start = PretrainedCrossEncoder(
            context.model,
            self.path,
            self.revision,
            self.max_length,
            self.attention,
            self.precision,
            self.trust_remote_code,
            CANDIDATES,
            dev_depth=self.dev_depth,
            seed=self.seed,
        )
        device = context.devices[0]
        ranker, examples = start.load(device), drawn(training_set, self.lists, self.seed)
        key = self._key(ranker, examples, dev, trainer)
        folds = None if self.training.folds is None else folds_of(examples, self.training.folds, self.training.seed)
        validate = None if dev is None else reranking_on_dev(dev, CANDIDATES, self.dev_depth)

        def train(some: CrossEncoder, lists: TrainingSet, folder: Path, into: Path) -> dict[str, Any]:
            found = self.training.fit(some, self.loss, lists, validate, trainer, context.store, folder)
            into.parent.mkdir(parents=True, exist_ok=True)
            save_cross_encoder(some, into)
            shutil.rmtree(folder)
            return asdict(found)

        def build(entry: Path) -> None:
            log.info("training a cross-encoder to teach: %d lists", len(examples.rows))
            for name, lists in _parts(examples, folds):
                into, done = entry / MODEL, entry / f"{name}.json"
                if name != MODEL:
                    into = into / FOLDS / name
                if not done.is_file():  # an interrupted training resumes with the first unfinished one
                    some = start.load(device)
                    checkpoints = entry / "checkpoints" / name
                    checkpoints.mkdir(parents=True, exist_ok=True)
                    write_text(done, json.dumps(train(some, lists, checkpoints, into)))
            if folds is not None:
                texts = examples.collection.query_texts(examples.rows["query"][:])
                write_assignment(entry / MODEL / FOLDS, texts, folds, int(folds.max()) + 1)
            shutil.rmtree(entry / "checkpoints", ignore_errors=True)

        entry = context.store.entry("teachers", key, build, version=VERSION, resumable=True)
        facts = json.loads((entry / FACTS).read_text(encoding="utf-8"))
        saved = str(entry / MODEL)
        teacher = load_teacher(saved, self.max_length, self.precision, device, None, self.trust_remote_code)
        told = {
            "teacher_lists": len(examples.rows),
            "teacher_steps": facts["steps"],
            "teacher_kept_step": facts["kept_step"],
            **_compared_with_encoder(facts, dev),
        }
        return TrainedTeacher(teacher, self.weight, context.store, told)

    def _key(
        self,
        ranker: CrossEncoder,
        examples: TrainingSet,
        dev: EvaluationContext | None,
        trainer: partial[pl.Trainer],
    ) -> dict[str, Any]:
        """Return everything that the trained model depends on."""
        collection = examples.collection
        return {
            "start": ranker.fingerprint,
            "corpus": collection.corpus_digest,
            "queries": collection.queries_digest,
            "examples": ExampleArrays(examples, self.training.max_positives).digest,
            "loss": loss_identity(self.loss),
            "training": digest(asdict(self.training)),
            "ranks": [str(trainer.keywords.get(name)) for name in ("devices", "num_nodes")],  # batches grow with them
            "dev": None if dev is None else self._judged_on(dev),
        }

    def _judged_on(self, dev: EvaluationContext) -> list[str]:
        """Return what chooses the kept weights: judgements, and the documents that are reranked."""
        ranked = dev.evaluation(CANDIDATES).ranking.documents
        candidates = {query: [name for name, _ in found[: self.dev_depth]] for query, found in ranked.items()}
        return [dev.split, dev.collection.qrels_digest(dev.split), digest(candidates)]


def drawn(training_set: TrainingSet, most: int | None, seed: int) -> TrainingSet:
    """Return the examples with negatives, or a sample of them drawn with the seed, in their order."""
    rows = np.flatnonzero([len(negatives) > 0 for negatives in training_set.rows["negatives"][:]])
    if most is not None and len(rows) > most:
        rows = np.sort(random_stream("lists of a teacher", seed).permutation(rows)[:most])
    return replace(training_set, rows=training_set.rows.select(rows) if len(rows) else training_set.rows)


def _parts(examples: TrainingSet, folds: np.ndarray | None) -> Iterator[tuple[str, TrainingSet]]:
    """Yield the trainings by the names of their folders: on all examples, and for each fold on the other folds."""
    yield MODEL, examples
    for fold in range(0 if folds is None else int(folds.max()) + 1):
        yield str(fold), replace(examples, rows=examples.rows.select(np.flatnonzero(folds != fold)))


def loss_identity(loss: nn.Module) -> dict[str, Any]:
    """Return the classes and values of a loss and of its parts, as JSON values."""
    parts = {
        place: {
            "class": f"{type(part).__module__}.{type(part).__qualname__}",
            **{name: repr(value) for name, value in vars(part).items() if name not in MODULE},
        }
        for place, part in loss.named_modules()
    }
    tensors = {name: value.tolist() for name, value in (*loss.named_parameters(), *loss.named_buffers())}
    return {"parts": parts, "tensors": tensors}


def _compared_with_encoder(facts: Mapping[str, Any], dev: EvaluationContext | None) -> dict[str, float]:
    """Return the quality of teacher and encoder on dev, for the report; warn if the teacher is worse."""
    kept = next((one for one in facts["history"] if one["step"] == facts["kept_step"]), None)
    if dev is None or kept is None:
        return {}
    ranking = dev.evaluation(CANDIDATES).ranking
    encoder = judge(CANDIDATES, dev.collection, dev.split, ranking, [VALIDATION_METRIC]).metrics[VALIDATION_METRIC]
    teacher = kept[VALIDATION_METRIC]
    if teacher < encoder:
        log.warning(
            "the cross-encoder reaches %s %.4f on dev, and the encoder that it is to teach %.4f: give it more pairs "
            "(teacher.lists), epochs (teacher.training.epochs) or another start (teacher.path), or set teacher=none",
            *(VALIDATION_METRIC, teacher, encoder),
        )
    return {f"teacher_{VALIDATION_METRIC}_on_dev": teacher, f"encoder_{VALIDATION_METRIC}_on_dev": encoder}
