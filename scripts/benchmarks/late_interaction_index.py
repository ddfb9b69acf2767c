"""What a token index costs and keeps: formats, candidates, and memory while it is built.

    python scripts/benchmarks/late_interaction_index.py vectors --data DIR --folder OUT
    python scripts/benchmarks/late_interaction_index.py formats --folder OUT
    python scripts/benchmarks/late_interaction_index.py candidates --folder OUT
    python scripts/benchmarks/late_interaction_index.py bm25 --data DIR --folder OUT
    python scripts/benchmarks/late_interaction_index.py latency --data DIR --model MODEL --folder OUT
    python scripts/benchmarks/late_interaction_index.py scale --folder OUT --documents 1000000

`vectors` encodes documents and TRAINING queries once: by the late-interaction model in `--model`, or else by an encoder
that was not trained for it, at length 1. The other parts read them on their first principal axes, turned at random so
that no dimension counts more than another; with all dimensions, products stay what they were.
`formats` compares each format, searched exactly, with float32: nDCG@10 and its paired difference, and the share of the
exact first ten that it finds. `candidates` compares searches by centroids with the exact search of the same format, one
query at a time: set OMP_NUM_THREADS=1 for one core. `bm25` does so for candidates from a BM25 search, with all
dimensions in half precision. `latency` also encodes each query, with the back ends in
`--backends` in turn, and searches an index with default settings. `scale` builds an index of random vectors that lie
in a file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from measuring import AnonymousMemory, mean_and_interval, unit
from minilm import MODEL

from embfit.data import Beir
from embfit.evaluator.metrics import per_query
from embfit.index import BM25Index, ExactIndex, TokenIndex, TokenIndexing
from embfit.index.protocol import NOTHING, Hits
from embfit.index.token_vectors import TOKEN_FORMATS, TokenCodec
from embfit.index.token_vectors.codec import LEVELS
from embfit.index.token_vectors.payloads import Levels
from embfit.model import Encoder, encoder_at
from embfit.model.back_ends.choice import choose_back_end
from embfit.ragged import offsets_of
from embfit.records import Ranking
from embfit.store import Store
from embfit.vectors import Vectors

K = 10
BATCH = 16  # texts encoded at once


def main() -> None:
    """Run one part."""
    arguments = _arguments()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    PARTS[arguments.part](arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--folder", type=Path, required=True, help="where vectors are kept")
    parser.add_argument("--data", help="a collection in BEIR's files, for `vectors`, `bm25` and `latency`")
    parser.add_argument("--model", help="a late-interaction model, for `vectors` (untrained by default) and `latency`")
    parser.add_argument("--documents", type=int, help="judged ones first; all by default (scale: 1,000,000)")
    parser.add_argument("--queries", type=int, default=200, help="of the training split, drawn at random")
    parser.add_argument("--dims", type=int, nargs="+", default=[128, 96, 48], help="of the token vectors")
    parser.add_argument("--formats", nargs="+", default=TOKEN_FORMATS, help="one alone for `scale`")
    parser.add_argument("--probes", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--shortlists", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--pool-factors", type=int, nargs="+", default=[1])
    parser.add_argument("--backends", nargs="+", default=["torch", "openvino"], help="of queries, for `latency`")
    parser.add_argument("--rounds", type=int, default=3, help="of `latency`; the back ends take turns in each")
    parser.add_argument("--tokens", type=int, default=16, help="of a document, for `scale`")
    parser.add_argument("--centroids", type=int, help="for `candidates` and `scale`; as an index chooses by default")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


@dataclass(frozen=True)
class Study:
    """Token vectors of documents and queries, and which documents are relevant."""

    documents: Vectors[np.ndarray]
    queries: Vectors[np.ndarray]
    document_ids: list[str]
    query_ids: list[str]
    qrels: dict[str, dict[str, int]]

    @classmethod
    def load(cls, folder: Path, dim: int | None, queries: int, seed: int) -> Study:
        """Open what `vectors` wrote, with some of the queries; projected to so many dimensions, or whole (None)."""
        facts = json.loads((folder / "study.json").read_text(encoding="utf-8"))
        read = {name: _read(folder, name) for name in ("documents", "queries")}
        documents, asked = read.values()
        if dim is not None:
            axes = _axes(documents.rows, dim, seed)
            documents, asked = (replace(part, rows=_projected(part.rows, axes)) for part in (documents, asked))
        chosen = np.sort(np.random.default_rng(seed).permutation(len(asked))[:queries])
        ids = [facts["query_ids"][row] for row in chosen]
        return cls(documents, asked.take(chosen), facts["document_ids"], ids, facts["qrels"])

    def ndcg(self, hits: Hits) -> np.ndarray:
        """Return each query's nDCG@10."""
        ranked = {
            query: [(self.document_ids[row], float(score)) for score, row in zip(*found, strict=True) if row != NOTHING]
            for query, *found in zip(self.query_ids, *hits, strict=True)
        }
        qrels = {query: self.qrels[query] for query in self.query_ids}
        values = per_query(Ranking.of(ranked, K), qrels, [f"ndcg@{K}"])[f"ndcg@{K}"]
        return np.array([values[query] for query in self.query_ids])


def vectors(arguments: argparse.Namespace) -> None:
    """Encode and keep the token vectors, in half precision."""
    collection = Beir(path=arguments.data, dev_share=0, test_share=0).load(Store(enabled=False))
    qrels = collection.qrels["train"]
    row_of = {name: row for row, name in enumerate(collection.document_ids)}
    judged = sorted({row_of[document] for of_query in qrels.values() for document in of_query})
    others = np.setdiff1d(np.random.default_rng(arguments.seed).permutation(len(row_of)), judged, assume_unique=True)
    rows = np.sort([*judged, *others][: arguments.documents])
    query_rows = [row for row, name in enumerate(collection.query_ids) if name in qrels]
    texts = {
        "documents": list(collection.document_texts(rows.tolist())),
        "queries": list(collection.query_texts(query_rows)),
    }
    if arguments.model is None:
        encoder = MODEL.load("cpu")
        for name, some in texts.items():
            _encode(encoder, some, arguments.folder, name)
    else:
        late = encoder_at(arguments.model, MODEL).load("cpu")
        _write(late.embed(texts["documents"], "document"), arguments.folder, "documents")
        _write(late.embed(texts["queries"], "query"), arguments.folder, "queries")
    facts = {
        "document_ids": [collection.document_ids[row] for row in rows],
        "query_ids": [collection.query_ids[row] for row in query_rows],
        "qrels": {query: dict(of_query) for query, of_query in qrels.items()},
    }
    (arguments.folder / "study.json").write_text(json.dumps(facts), encoding="utf-8")


def formats(arguments: argparse.Namespace) -> None:
    """Print what each format keeps of the exact search of float32."""
    print("| dims | format | bytes a vector | index MB | nDCG@10 | difference from float32 | first ten found |")
    print("|--:|---|--:|--:|--:|---|--:|")
    for dim in arguments.dims:
        study = Study.load(arguments.folder, dim, arguments.queries, arguments.seed)
        exact = ExactIndex(study.documents).search(study.queries, K)
        whole = study.ndcg(exact)
        print(f"| {dim} | float32 | {4 * dim} | {study.documents.rows.nbytes / 1e6:.1f} | {whole.mean():.4f} | | |")
        for name, index in _indexes(study, arguments):
            hits = index.search(study.queries, K)
            values = study.ndcg(hits)
            print(
                f"| {dim} | {name} | {index.codec.width} | {index.bytes / 1e6:.1f} | {values.mean():.4f} "
                f"| {mean_and_interval(values - whole)} | {_shared(exact, hits):.3f} |",
                flush=True,
            )


def candidates(arguments: argparse.Namespace) -> None:
    """Print what searches by centroids find of the exact first ten, and how long one query takes on this many cores."""
    print("| dims | format | probes | shortlist | first ten found | ms p50 | ms p95 | CPU ms p50 |")
    print("|--:|---|--:|--:|--:|--:|--:|--:|")
    for dim in arguments.dims:
        study = Study.load(arguments.folder, dim, arguments.queries, arguments.seed)
        for form in arguments.formats:
            settings = TokenIndexing(
                format=form, candidates="centroids", centroids=arguments.centroids, seed=arguments.seed
            )
            with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
                index = TokenIndex.build(study.documents, Path(folder), settings)
                everything = np.tile(np.arange(len(index)), (len(study.queries), 1))
                exact, *times = _timed(index, study.queries, everything)
                print(_timing(f"| {dim} | {form} | – | all", 1.0, *times), flush=True)
                for probes in arguments.probes:
                    for shortlist in arguments.shortlists:
                        settings = replace(settings, probes=probes, shortlist=shortlist)
                        index = TokenIndex(Path(folder), replace(index.manifest, settings=settings))
                        hits, *times = _timed(index, study.queries)
                        line = f"| {dim} | {form} | {probes} | {shortlist}"
                        print(_timing(line, _shared(exact, hits), *times), flush=True)


def bm25(arguments: argparse.Namespace) -> None:
    """Print what searches among the first documents of BM25 find of the exact first ten, and how well they rank.

    Times are of the process, for one query at a time: the search of the words, and the scoring of what it finds.
    """
    study = Study.load(arguments.folder, None, arguments.queries, arguments.seed)
    collection = Beir(path=arguments.data, dev_share=0, test_share=0).load(Store(enabled=False))
    rows = [collection.document_rows[name] for name in study.document_ids]
    texts = list(collection.query_texts([collection.query_rows[name] for name in study.query_ids]))
    words = BM25Index.build(collection.document_texts(rows))
    exact = ExactIndex(study.documents).search(study.queries, K)
    whole = study.ndcg(exact)
    print("| candidates | first ten found | nDCG@10 | difference from all | CPU ms p50, words | vectors |")
    print("|---|--:|--:|---|--:|--:|")
    print(f"| all | 1.000 | {whole.mean():.4f} | | | |", flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        index = TokenIndex.build(study.documents, Path(folder), TokenIndexing(format="float16", candidates="bm25"))
        for shortlist in arguments.shortlists:
            listed, spent = [], []
            for text in texts:
                started = time.process_time()
                listed.append(words.search([text], shortlist)[1][0])
                spent.append(time.process_time() - started)
            hits, _, scoring = _timed(index, study.queries, np.array(listed))
            values = study.ndcg(hits)
            print(
                f"| {shortlist} of BM25 | {_shared(exact, hits):.3f} | {values.mean():.4f} "
                f"| {mean_and_interval(values - whole)} | {1000 * statistics.median(spent):.1f} "
                f"| {1000 * statistics.median(scoring):.1f} |",
                flush=True,
            )


def latency(arguments: argparse.Namespace) -> None:
    """Print how long a query takes to encode and to search, one at a time, for each back end of the encoder."""
    facts = json.loads((arguments.folder / "study.json").read_text(encoding="utf-8"))
    documents = _read(arguments.folder, "documents")
    collection = Beir(path=arguments.data, dev_share=0, test_share=0).load(Store(enabled=False))
    chosen = np.random.default_rng(arguments.seed).permutation(len(facts["query_ids"]))[: arguments.queries]
    row_of = {name: row for row, name in enumerate(collection.query_ids)}
    texts = list(collection.query_texts([row_of[facts["query_ids"][place]] for place in chosen]))
    encoders: dict[str, Encoder] = {}
    for back_end in arguments.backends:
        encoders[back_end] = encoder_at(arguments.model, MODEL).load("cpu")
        choose_back_end(encoders[back_end], back_end, "auto", store=None)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        index = TokenIndex.build(documents, Path(folder), TokenIndexing(seed=arguments.seed))
        everything = np.arange(len(index))[None]
        spent: dict[str, list[tuple[float, float]]] = {back_end: [] for back_end in encoders}
        found: dict[str, list[float]] = {back_end: [] for back_end in encoders}
        for turn in range(arguments.rounds):
            for back_end, encoder in encoders.items():
                index.search(encoder.embed(texts[:1], "query"), K)  # warms up
                for text in texts:
                    started = time.process_time()
                    query = encoder.embed([text], "query")
                    encoded = time.process_time()
                    hits = index.search(query, K)
                    spent[back_end].append((encoded - started, time.process_time() - encoded))
                    if not turn:
                        found[back_end].append(_shared(index.search(query, K, among=everything), hits))
    print(f"{len(index)} documents, {len(texts)} queries, {index.codec.form}, candidates: {index.manifest.candidates}")
    print("| queries encoded by | CPU ms to encode, p50 | to search | in all, p50 | p95 | first ten found |")
    print("|---|--:|--:|--:|--:|--:|")
    for back_end, times in spent.items():
        encoding, searching = 1000 * np.array(times).T
        whole = np.percentile(encoding + searching, [50, 95])
        parts = [np.median(encoding), np.median(searching), *whole]
        print(f"| {back_end} | {' | '.join(f'{part:.1f}' for part in parts)} | {np.mean(found[back_end]):.3f} |")


def scale(arguments: argparse.Namespace) -> None:
    """Print the time and the memory that building an index of random vectors takes."""
    count, dim = arguments.documents or 1_000_000, arguments.dims[0]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        path = Path(name, "vectors.npy")
        random = np.random.default_rng(arguments.seed)
        matrix = np.lib.format.open_memmap(path, "w+", np.float16, (count * arguments.tokens, dim))
        for first in range(0, len(matrix), 1 << 16):
            matrix[first : first + (1 << 16)] = unit(random.standard_normal((min(1 << 16, len(matrix) - first), dim)))
        del matrix
        starts = arguments.tokens * np.arange(count + 1)
        documents = Vectors(np.load(path, mmap_mode="r"), starts)
        settings = TokenIndexing(format=arguments.formats[0], centroids=arguments.centroids, seed=arguments.seed)
        started = time.perf_counter()
        with AnonymousMemory() as memory:
            index = TokenIndex.build(documents, Path(name, "index"), settings, label="building")
        seconds = time.perf_counter() - started
        print(
            f"{count} documents of {arguments.tokens} vectors of {dim} dimensions, {index.manifest.form}: "
            f"{seconds:.0f} s, {(memory.most - memory.before) / 1e6:.0f} MB of memory beyond "
            f"{memory.before / 1e6:.0f} MB (vectors as float32: {4 * dim * len(documents.rows) / 1e6:.0f} MB; index: "
            f"{index.bytes / 1e6:.0f} MB)"
        )


PARTS = {part.__name__: part for part in (vectors, formats, candidates, bm25, latency, scale)}


def _encode(encoder: Encoder, texts: list[str], folder: Path, name: str) -> None:
    """Write the texts' last hidden states, one a token, at length 1."""
    tokens = [encoder.tokenizer(text, truncation=True, max_length=encoder.max_length)["input_ids"] for text in texts]
    starts = offsets_of([len(ids) for ids in tokens])
    np.save(folder / f"{name}-starts.npy", starts)
    rows = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float16, (int(starts[-1]), encoder.width))
    order = np.argsort(np.diff(starts), kind="stable")
    for first in range(0, len(order), BATCH):
        some = order[first : first + BATCH]
        batch = encoder.tokenizer.pad({"input_ids": [tokens[text] for text in some]}, return_tensors="pt")
        with torch.inference_mode():
            states = encoder.backbone(**batch).last_hidden_state
        for text, found in zip(some, unit(states.flatten(0, 1).numpy()).reshape(states.shape), strict=True):
            rows[starts[text] : starts[text + 1]] = found[: starts[text + 1] - starts[text]]
    rows.flush()


def _write(vectors: Vectors[np.ndarray], folder: Path, name: str) -> None:
    assert vectors.starts is not None
    np.save(folder / f"{name}-starts.npy", vectors.starts)
    np.save(folder / f"{name}.npy", vectors.rows)


def _read(folder: Path, name: str) -> Vectors[np.ndarray]:
    return Vectors(np.load(folder / f"{name}.npy"), np.load(folder / f"{name}-starts.npy"))


def _axes(rows: np.ndarray, dim: int, seed: int) -> np.ndarray:
    """Return the first principal axes of vectors, turned at random: [W, dim]."""
    random = np.random.default_rng(seed)
    sample = rows[np.sort(random.permutation(len(rows))[:50_000])].astype(np.float64)
    values, axes = np.linalg.eigh(sample.T @ sample)
    turned, _ = np.linalg.qr(random.standard_normal((dim, dim)))
    found: np.ndarray = (axes[:, np.argsort(-values)[:dim]] @ turned).astype(np.float32)
    return found


def _projected(rows: np.ndarray, axes: np.ndarray) -> np.ndarray:
    return np.concatenate(
        [unit(rows[first : first + 65_536].astype(np.float32) @ axes) for first in range(0, len(rows), 65_536)]
    )


def _indexes(study: Study, arguments: argparse.Namespace) -> Iterator[tuple[str, TokenIndex]]:
    """Yield an index of each format, of residual formats with levels at equal shares too, and pooled ones."""
    for factor in arguments.pool_factors:
        for form in arguments.formats:
            settings = TokenIndexing(format=form, candidates="exact", pool_factor=factor, seed=arguments.seed)
            pooled = "" if factor == 1 else f", pooled by {factor}"
            with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
                index = TokenIndex.build(study.documents, Path(folder), settings)
                yield f"{form}{pooled}", index
                if form in LEVELS and factor == 1:
                    codec = _equal_shares(index.codec, study.documents.rows)
                    yield (
                        f"{form}, equal shares",
                        TokenIndex.build(study.documents, Path(folder), settings, codec=codec),
                    )


def _equal_shares(codec: TokenCodec, rows: np.ndarray) -> TokenCodec:
    """Return a codec whose levels are the middles of equal shares of all residuals, as PLAID's are."""
    assert isinstance(codec.payload, Levels)
    assert codec.centroids is not None
    some = rows[:: max(1, len(rows) // 50_000)]
    residuals = some - codec.centroids[codec.codes(codec.encode(some))]
    count = len(codec.payload.levels)
    levels = np.quantile(residuals, (np.arange(count) + 0.5) / count).astype(np.float32)
    return replace(codec, payload=Levels(levels, np.ones(rows.shape[1], np.float32)))


def _timed(
    index: TokenIndex, queries: Vectors[np.ndarray], among: np.ndarray | None = None
) -> tuple[Hits, list[float], list[float]]:
    """Search for each query alone; return the hits, and each one's seconds by the clock and of this process."""
    found, clock, process = [], [], []
    for query in range(len(queries)):
        one = queries.part(query, query + 1)
        started, spent = time.perf_counter(), time.process_time()
        found.append(index.search(one, K, among=None if among is None else among[query : query + 1]))
        clock.append(time.perf_counter() - started)
        process.append(time.process_time() - spent)
    scores, rows = zip(*found, strict=True)
    return (np.concatenate(scores), np.concatenate(rows)), clock, process


def _timing(line: str, shared: float, clock: list[float], process: list[float]) -> str:
    times = statistics.median(clock), statistics.quantiles(clock, n=20)[-1], statistics.median(process)
    return f"{line} | {shared:.3f} | " + " | ".join(f"{1000 * seconds:.1f}" for seconds in times) + " |"


def _shared(exact: Hits, hits: Hits) -> float:
    """Return the share of the exact first ten that are among the others, on average."""
    pairs = zip(exact[1], hits[1], strict=True)
    return float(np.mean([np.isin(wanted, found).mean() for wanted, found in pairs]))


if __name__ == "__main__":
    main()
