"""`task=quantize`: quantises a model to static int8 and compares it with the model in fp32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import Field

from embfit.bundle.quality import sample_queries
from embfit.compose.tasks import task
from embfit.errors import ConfigError, UserError
from embfit.evaluator import Retrieval
from embfit.evaluator.metrics import answerable
from embfit.evaluator.systems import evaluate_encoder
from embfit.index import ExactIndex
from embfit.model import Encoder, EncoderChoice, LateInteractionEncoder, save_encoder
from embfit.model.back_ends.choice import choose_back_end, convert_backbone
from embfit.model.back_ends.graph import GraphBackEnd, check_installed
from embfit.model.back_ends.static_int8 import quantize_graph
from embfit.model.fingerprint import frozen
from embfit.model.lora import has_adapter, merge
from embfit.records import Collection, Comparison, Report
from embfit.run.folder import RunFolder
from embfit.store import Store
from embfit.task.data_facts import describe
from embfit.task.protocols import Data
from embfit.task.reporting import REPORT, close
from embfit.tokens import Tokens, concatenate
from embfit.vectors import Vectors, unit_length

HELD_OUT = 500  # the most documents whose vectors are compared
FIRST = 10  # the most top documents of a query that are compared
SHARE = 10  # the top documents are at most this fraction of all: of ten documents, all are in the top ten

Unit = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Agreement:
    """The agreement of int8 with fp32, on documents outside the calibration.

    Args:
        documents: the number of documents.
        queries: the number of queries.
        first: the number of top documents of each query that are compared.
        cosine: the mean cosine between the vectors of int8 and fp32.
        lowest_cosine: the lowest such cosine.
        overlap: the mean share of a query's top documents that both have.
    """

    documents: int
    queries: int
    first: int
    cosine: float
    lowest_cosine: float
    overlap: float

    @property
    def sentence(self) -> str:
        """A sentence for the log."""
        return (
            f"of {self.documents:,} documents left out of the calibration: cosine {self.cosine:.4f} with fp32's "
            f"vectors (lowest {self.lowest_cosine:.4f}), and {self.overlap:.1%} of the first {self.first} of "
            f"{self.queries} queries"
        )


@task(outputs=(*REPORT, "model"))
def quantize(
    data: Data,
    model: EncoderChoice,
    evaluator: Retrieval,
    store: Store,
    run: RunFolder,
    seed: int,
    texts: Annotated[int, Field(ge=1)] = 256,
    tolerance: Unit = 0.02,
    overlap: Unit = 0.8,
) -> Report:
    """Quantise a model to static int8 on a collection's texts, and keep it if it is as good as in fp32.

    It is calibrated on documents and training queries. If the evaluator's split has judgements, `tolerance` decides,
    else `overlap`. A model that passes is in `model/` of the run folder, for `model.precision=int8`. OpenVINO computes
    it if `model.backend` is `openvino`, otherwise ONNX Runtime, which makes it in any case.

    Args:
        data: the texts, and judgements if there are any.
        model: the model to quantise.
        evaluator: measures both models.
        store: keeps graphs and vectors.
        run: the run folder, which gets the model and the report.
        seed: draws the texts.
        texts: the number of documents for the calibration, and the largest number of training queries.
        tolerance: how much lower than in fp32 the first metric may be. The lower end of the paired 95 % interval of
            the difference must be within it.
        overlap: without judgements, the lowest accepted share of equal top documents. The top ten of each
            query are compared, or fewer if fewer than a hundred documents are outside the calibration.

    Raises:
        ConfigError: onnxruntime is not installed, or there are too few documents.
        UserError: the model cannot be quantised, or its quality is too low.
    """
    with run.stage("load data"):
        collection = data.load(store)
        if len(collection.corpus) < 2 * FIRST:
            raise ConfigError(
                f"{collection.name} has {len(collection.corpus)} documents; int8 is calibrated on some and compared "
                f"with fp32 on others, for which {2 * FIRST} are needed"
            )
    with run.stage("load model"):
        encoder = replace(model, backend="torch", precision="fp32", dtype="float32").load("cpu", store=store)
        if has_adapter(encoder.backbone):
            merge(encoder.backbone)
        back_end: GraphBackEnd = "openvino" if model.backend == "openvino" else "onnx"
        check_installed(back_end, "model.backend")
        choose_back_end(encoder, "onnx", "fp32", store)
    context = evaluator.context(collection, store, model, ("cpu",), lambda: encoder)
    judged = bool(answerable(collection.qrels.get(evaluator.split, {})))
    rows = np.random.default_rng(seed).permutation(len(collection.corpus))
    count = min(texts, len(rows) // 2)
    held_out = _HeldOut(
        list(collection.document_texts(rows[count : count + HELD_OUT].tolist())),
        sample_queries(collection, evaluator.split),
    )
    with frozen(encoder):
        with run.stage("evaluate fp32"):
            plain, before = held_out.vectors(encoder), [evaluate_encoder("fp32", encoder, context)] if judged else []
        with run.stage("quantize"):
            tokens = _calibration(encoder, collection, rows[:count], seed)
            fp32 = convert_backbone(encoder, "onnx", "fp32", store)
            encoder.graph = quantize_graph(encoder, fp32, tokens, store, back_end)
        with run.stage("evaluate int8"):
            agreement = _compare(plain, held_out.vectors(encoder))
            after = [evaluate_encoder("int8", encoder, context)] if judged else []
        comparisons = [found for a, b in zip(before, after, strict=True) for found in evaluator.compare(a, b)]
        passed, said = _gate(comparisons, agreement, tolerance, overlap)
        folder = run.dir / "model"
        if passed:
            with run.stage("save"):
                save_encoder(encoder, folder)
    report = Report(
        task="quantize",
        evaluations=[*before, *after],
        comparisons=comparisons,
        data=describe(collection),
        timings=run.timings,
        sections={"int8": {"passed": passed, "said": said, "texts": len(tokens), **asdict(agreement)}},
    )
    sentences = [agreement.sentence, f"{'passed' if passed else 'FAILED'}  {said}"]
    if passed:
        choice = "colbert" if isinstance(encoder, LateInteractionEncoder) else "custom"
        trusted = " model.trust_remote_code=true" if model.trust_remote_code else ""
        settings = f"model.path={folder}{trusted} model.backend={back_end} model.precision=int8"
        sentences.append(f"use it: model={choice} {settings}")
    close(report, run, collection, [("model", str(folder))] if passed else [], sentences=sentences)
    if not passed:
        raise UserError(f"{encoder.source} is not as good in int8: {said}; set model.precision=auto")
    return report


@dataclass(frozen=True)
class _HeldOut:
    """The texts on which the two models are compared."""

    documents: Sequence[str]
    queries: Sequence[str]

    def vectors(self, encoder: Encoder) -> tuple[Vectors[np.ndarray], Vectors[np.ndarray]]:
        """Return the vectors of the documents and of the queries."""
        return encoder.embed(self.documents, "document"), encoder.embed(self.queries, "query")


def _calibration(encoder: Encoder, collection: Collection, documents: np.ndarray, seed: int) -> Tokens:
    """Return the tokens of documents, and of as many training queries if there are so many."""
    trains = sorted(collection.query_rows[query] for query in answerable(collection.qrels.get("train", {})))
    queries = np.random.default_rng(seed).permutation(trains)[: len(documents)].astype(int).tolist()
    parts = [encoder.tokenize(collection.document_texts(documents.tolist()), "document")]
    if queries:
        parts.append(encoder.tokenize(collection.query_texts(queries), "query"))
    return concatenate(parts)


def _compare(
    plain: tuple[Vectors[np.ndarray], Vectors[np.ndarray]], quantized: tuple[Vectors[np.ndarray], Vectors[np.ndarray]]
) -> Agreement:
    """Compare the vectors of the same documents and queries."""
    cosines = np.einsum("vd,vd->v", unit_length(plain[0].rows), unit_length(quantized[0].rows))
    documents, queries = len(plain[0]), len(plain[1])
    first = min(FIRST, max(1, documents // SHARE))
    before, after = (ExactIndex(read).search(asked, first)[1].tolist() for read, asked in (plain, quantized))
    shares = [len({*ours} & {*theirs}) / first for ours, theirs in zip(before, after, strict=True)]
    return Agreement(documents, queries, first, float(cosines.mean()), float(cosines.min()), float(np.mean(shares)))


def _gate(
    comparisons: Sequence[Comparison], agreement: Agreement, tolerance: float, overlap: float
) -> tuple[bool, str]:
    """Return whether int8 is as good as fp32, and a sentence with the values and the limit."""
    if not comparisons:
        said = f"{agreement.overlap:.4f} of the first {agreement.first} of {agreement.documents} documents are fp32's"
        said += f", limit task.overlap={overlap:g}"
        return agreement.overlap >= overlap, said
    first = comparisons[0]
    lower = first.difference if first.ci95 is None else first.ci95[0]
    interval = "" if first.ci95 is None else f", 95 % interval {first.ci95[0]:+.4f} to {first.ci95[1]:+.4f}"
    said = f"{first.metric} {first.difference:+.4f} against fp32{interval}; limit task.tolerance={tolerance:g}"
    return lower >= -tolerance, said
