"""What late interaction gains over one vector a text, trained on the same data with the same budget, and at what size.

For each seed three models are trained from MiniLM on the same queries with the same mined negatives, epochs and
batches, validated on dev: `single` (one vector a text), `late` (a new projection, one vector a token) and `distilled`
(late interaction that also learns a teacher's scores). The teacher is the best at hand on dev: the two other models of
the seed, and what `--teachers` names, cross-encoders among them. Then each is measured on whole splits, alone and fused
with BM25, and `late` as an index in every format. Differences are paired by query, each query's values averaged over
the seeds first: over all queries, over those with a rare word, and over those about a document that the single vector
cuts off.

    python scripts/benchmarks/late_interaction_quality.py scifact=DIR --splits test
    python scripts/benchmarks/late_interaction_quality.py medquad-small=DIR --splits test,production

A model that is trained is not trained again, training resumes from its last checkpoint, and a measurement that is there
is not made again: the same command continues an interrupted one. `--table` prints what is there.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from late_interaction_table import table
from measuring import numbers, read
from minilm import MODEL

from embfit.assess.hard_queries import cut_off_queries, document_frequency, rare_term_queries
from embfit.atomic_files import write_text
from embfit.data import Beir
from embfit.evaluator import Retrieval
from embfit.evaluator.metrics import per_query
from embfit.evaluator.systems import (
    BM25System,
    DenseSystem,
    EvaluationContext,
    LateRerankedSystem,
    RerankedSystem,
    ScoreFusion,
    System,
)
from embfit.evaluator.validation import validate
from embfit.index import ExactIndex, TokenIndex, TokenIndexing
from embfit.index.token_vectors import TOKEN_FORMATS
from embfit.loss import KL, Distillation, InfoNCE
from embfit.miner import DenseMiner, ScoredMiner
from embfit.model import EncoderChoice, LateInteraction, embed, encoder_at, save_encoder, tokenized
from embfit.model.folder import holds_cross_encoder
from embfit.model.location import find_model
from embfit.store import Store
from embfit.training import Training

METRIC = "ndcg@10"
MODELS = ("single", "late", "distilled")


def main() -> None:
    """Train, measure and print a table for each collection."""
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for named in arguments.collections:
        name, _, folder = named.partition("=")
        study = Study(arguments, name, folder)
        if not arguments.table:
            study.run()
        study.print_table()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collections", nargs="+", metavar="NAME=BEIR_FOLDER")
    parser.add_argument("--splits", default="test", help="reported, separated by commas")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--negatives", type=int, default=2)
    parser.add_argument("--max-length", type=int, default=256, help="tokens read of a document, by every model")
    parser.add_argument("--single-lr", type=float, default=5e-5)
    parser.add_argument("--late-lr", type=float, default=1e-4)
    parser.add_argument("--late-temperature", type=float, default=0.03)
    parser.add_argument("--teacher-weight", type=float, default=0.5, help="of the teacher's loss in `distilled`")
    parser.add_argument("--teachers", default="", help="folders of further teachers, separated by commas")
    parser.add_argument("--max-train", type=int, help="queries; all by default")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/late_interaction"))
    parser.add_argument("--table", action="store_true", help="print what is there, run nothing")
    return parser.parse_args()


class Study:
    """One collection: its models, what was measured of them, and the table of it.

    Args:
        arguments: the options of the command.
        name: the collection's.
        data: its folder.
    """

    def __init__(self, arguments: argparse.Namespace, name: str, data: str) -> None:
        self.arguments, self.name, self.data = arguments, name, data
        self.folder = arguments.out / name
        self.results = self.folder / "results.jsonl"
        self.seeds = numbers(arguments.seeds)
        self.splits = arguments.splits.split(",")
        self.store = Store(self.folder / "store")
        settings = {
            key: value
            for key, value in vars(arguments).items()
            if key not in ("collections", "splits", "seeds", "out", "table")
        }
        kept = self.folder / "settings.json"
        if kept.is_file() and json.loads(kept.read_text()) != settings:
            raise SystemExit(f"{kept} has other settings; remove the folder, or choose another --out")
        if not arguments.table:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(kept, json.dumps(settings, indent=1) + "\n")

    @cached_property
    def collection(self) -> Any:
        """The collection, with a dev split of its own or held out of train."""
        return Beir(path=self.data, max_train=self.arguments.max_train).load(self.store)

    @cached_property
    def evaluator(self) -> Retrieval:
        """Measures the metric alone."""
        return Retrieval(split=self.splits[0], metrics=(METRIC,), depth=100, near_copy=None)

    def run(self) -> None:
        """Train and measure whatever is not there yet, seed by seed."""
        for seed in self.seeds:
            for model in MODELS:
                self.train(model, seed)
            self.measure(seed)
            self.measure_formats(seed)

    def model(self, model: str, seed: int) -> Path:
        """Return the folder of a model."""
        folder: Path = self.folder / f"{model}-{seed}" / "model"
        return folder

    def choice(self, model: str, seed: int) -> EncoderChoice:
        """Return what a training begins with."""
        length = self.arguments.max_length
        if model == "single":
            return replace(MODEL, max_length=length)
        return LateInteraction(MODEL.path, packages=MODEL.packages, document_length=length, head_seed=seed)

    def train(self, model: str, seed: int) -> None:
        """Train a model, or resume its training, and save it."""
        folder = self.model(model, seed).parent
        if (folder / "training.json").is_file():
            return
        import pytorch_lightning as pl

        arguments, negatives = self.arguments, DenseMiner(negatives=self.arguments.negatives)
        miner: Any = negatives
        loss: Any = InfoNCE(arguments.late_temperature if model != "single" else 0.05)
        teacher = None
        if model == "distilled":
            teacher = self.teacher(seed)
            miner = ScoredMiner(model=teacher, miner=negatives)
            loss = Distillation(loss, KL(arguments.late_temperature), arguments.teacher_weight)
        examples = miner.mine(
            self.collection, self.choice("single", seed).load(), self.store
        )  # the same for every model
        choice = self.choice(model, seed)
        encoder = choice.load()
        rate = arguments.single_lr if model == "single" else arguments.late_lr
        training = Training(epochs=arguments.epochs, batch_size=arguments.batch_size, lr=rate, seed=seed)
        trainer = partial(pl.Trainer, accelerator="cpu", devices=1, logger=False)
        validated = partial(validate, self.evaluator.judging, collection=self.collection)
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        logging.info("training %s of seed %d on %d examples", model, seed, len(examples))
        started = time.process_time()
        with choice.trainable(encoder):
            fit = training.fit(encoder, loss, examples, validated, trainer, self.store, folder / "checkpoints")
        save_encoder(encoder, folder / "model")
        facts = {"teacher": teacher, "cpu_seconds": time.process_time() - started, **asdict(fit)}
        write_text(folder / "training.json", json.dumps(facts, indent=1) + "\n")
        shutil.rmtree(folder / "checkpoints")

    def teacher(self, seed: int) -> str:
        """Return the folder of the best teacher on dev."""
        folders = [str(self.model(model, seed)) for model in ("single", "late")]
        folders += [folder for folder in self.arguments.teachers.split(",") if folder]
        systems: dict[str, System] = {"bm25": BM25System(), "first": ScoreFusion(of=[folders[0], "bm25"])}
        for folder in folders:
            is_ranker = holds_cross_encoder(find_model(folder))
            systems[folder] = RerankedSystem("first", folder, top=30) if is_ranker else DenseSystem(folder)
        context = self.context(systems, self.evaluator.dev_split)
        reached = {folder: context.evaluation(folder).metrics[METRIC] for folder in folders}
        for folder, value in reached.items():
            logging.info("as a teacher, on dev: %s %.4f", folder, value)
        return max(folders, key=reached.__getitem__)

    def context(self, systems: Mapping[str, System], split: str) -> EvaluationContext:
        """Return what systems are measured on."""
        evaluator = replace(self.evaluator, split=split, systems=systems)
        return evaluator.context(self.collection, self.store, self.choice("single", 0))

    def measure(self, seed: int) -> None:
        """Measure the models of a seed, alone and fused with BM25, on every split."""
        systems: dict[str, System] = {"BM25": BM25System()}
        for model in MODELS:
            systems[model] = DenseSystem(str(self.model(model, seed)))
            systems[f"{model} + BM25"] = ScoreFusion(of=[model, "BM25"])
        late = str(self.model("late", seed))
        systems["late over single + BM25"] = LateRerankedSystem(late, of="single + BM25", top=100)
        for split in self.splits:
            context = self.context(systems, split)
            for name in systems:
                if not self.has(split=split, seed=seed, system=name):
                    self.add(split, seed, name, context.evaluation(name).per_query[METRIC])

    def measure_formats(self, seed: int) -> None:
        """Measure an index of the tuned late-interaction model in every format, each searched exactly."""
        wanted = ["exact", *TOKEN_FORMATS, "candidates"]
        missing = [
            (split, form) for split in self.splits for form in wanted
            if not self.has(split=split, seed=seed, system=f"late, {form}")
        ]  # fmt: skip
        if not missing:
            return
        encoder = encoder_at(str(self.model("late", seed)), MODEL).load()
        documents = embed(encoder, self.collection, "document", self.store)
        auto = TokenIndexing(seed=seed).format_for(len(documents.vectors), len(documents.vectors.rows), encoder.width)
        for form in dict.fromkeys(form for _, form in missing):
            folder = self.folder / "index"
            settings = TokenIndexing(format=auto if form == "candidates" else form, seed=seed)  # type: ignore[arg-type]
            settings = replace(settings, candidates="centroids" if form == "candidates" else "exact")
            started = time.process_time()
            index: Any = (
                ExactIndex(documents.vectors)
                if form == "exact"
                else TokenIndex.build(documents.vectors, folder, settings, label=f"index, {form}")
            )
            facts = {"build_cpu_seconds": time.process_time() - started, "tokens": len(documents.vectors.rows)}
            if form != "exact":
                facts |= {"format": index.codec.form, "bytes_per_token": index.bytes_per_vector, "bytes": index.bytes}
            for split in [split for split, one in missing if one == form]:
                context = self.context({}, split)
                texts = list(self.collection.query_texts(context.rows))
                queries = encoder.embed(texts, "query")
                hits = index.search(queries, context.search.search_depth, f"searching, {form}")
                ranking = context.search.ranking(context.rows, hits)
                if form == "candidates":
                    whole = replace(settings, candidates="exact")
                    exact = TokenIndex.build(documents.vectors, self.folder / "whole", whole, codec=index.codec)
                    _, best = exact.search(queries, 10)
                    found = [len(set(a[:10]) & set(b)) / len(b) for a, b in zip(hits[1], best, strict=True)]
                    facts["recall_at_10"] = statistics.mean(found)
                    shutil.rmtree(self.folder / "whole")
                values = per_query(ranking, self.collection.qrels[split], [METRIC])[METRIC]
                self.add(split, seed, f"late, {form}", values, facts)
            if form != "exact":
                shutil.rmtree(folder)

    def has(self, **case: Any) -> bool:
        """Whether a measurement is there."""
        return any({key: done[key] for key in case} == case for done in read(self.results))

    def add(self, split: str, seed: int, system: str, values: Mapping[str, float], facts: Any = None) -> None:
        """Add a measurement to the results, and say what it found."""
        line = {"split": split, "seed": seed, "system": system, "facts": facts or {}, "values": dict(values)}
        with self.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        logging.info("%s, seed %d, %s: %.4f", split, seed, system, statistics.mean(values.values()))

    def parts(self, split: str) -> dict[str, list[str]]:
        """Return the queries that are looked at by themselves."""
        qrels, single = self.collection.qrels[split], self.choice("single", 0).load("cpu")
        frequency = document_frequency(self.collection)
        truncated = tokenized(single, self.collection, "document", self.store).truncated
        return {
            "rare word": rare_term_queries(self.collection, qrels, frequency),
            f"document beyond {self.arguments.max_length} tokens": cut_off_queries(self.collection, qrels, truncated),
        }

    def print_table(self) -> None:
        """Print what was measured as Markdown."""
        for split in self.splits:
            found = [line for line in read(self.results) if line["split"] == split and line["seed"] in self.seeds]
            if not found:
                print(f"{self.name}/{split}: nothing was measured yet")
                continue
            for line in table(f"{self.name}/{split}", found, self.parts(split)):
                print(line)
        for model in MODELS:
            records = [self.model(model, seed).parent / "training.json" for seed in self.seeds]
            facts = [json.loads(record.read_text()) for record in records if record.is_file()]
            if facts:
                minutes = statistics.mean(one["cpu_seconds"] for one in facts) / 60
                told = sorted({one["teacher"] for one in facts if one["teacher"]})
                teachers = f"; taught by {', '.join(told)}" if told else ""
                print(f"{model}: {minutes:.1f} CPU-minutes of training on average{teachers}")


if __name__ == "__main__":
    main()
