"""Latency and throughput of `task=serve` over HTTP, swaps under load, and what the server holds over time.

The server runs on the first core and the clients on the second. A bundle of short made-up documents is made once, in
`--folder`, with two versions that differ in their model's query prompt, so that their answers differ too.

    python scripts/benchmarks/serving.py latency --documents 100000
    python scripts/benchmarks/serving.py latency --documents 100000 --index ivf --server server.backend=openvino
    python scripts/benchmarks/serving.py latency --documents 100000 --index ivf --precision int8    # by OpenVINO
    python scripts/benchmarks/serving.py throughput            # in batches, and text by text, in turns
    python scripts/benchmarks/serving.py swaps --swaps 200     # every answer is held to what its version answers
    python scripts/benchmarks/serving.py soak --minutes 20     # memory, descriptors and threads at full load

`serving_peers.py` measures other servers beside it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

NAME = "serving"
WORDS = re.findall(
    r"\w+",
    "open close read write file socket thread lock queue timer parse format encode decode list tuple set string bytes "
    "number match group search sort heap tree node path folder copy move remove create update delete insert select "
    "join split merge filter map reduce compile import module class method object value key index error warning log",
)
WARM = 20  # requests that are not measured
FIRST = 10  # documents of an answer
CALIBRATED = 256  # documents that int8 is calibrated on
SOAK_LOOKS = 20  # times that a soak looks at the server, besides the first
FIRST_CORE, LAST_CORE = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))


def main() -> None:
    """Make the bundle where there is none, and measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["latency", "throughput", "swaps", "soak"])
    parser.add_argument("--folder", type=Path, default=Path("outputs/benchmarks/serving"))
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--index", choices=["exact", "int8", "bf16", "hnsw", "ivf"], default="exact")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16", "int8"], default="auto", help="of the bundle")
    parser.add_argument("--server", nargs="*", default=[], metavar="KEY=VALUE", help="further settings of the server")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=500, help="of the one client whose latency is measured")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a turn of throughput")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--swaps", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=20.0, help="of the soak")
    arguments = parser.parse_args()
    suffix = "" if arguments.precision == "auto" else f"-{arguments.precision}"
    bundles = arguments.folder / f"bundles-{arguments.documents}-{arguments.index}{suffix}"
    if not (bundles / NAME / "champion").exists():
        store = Path(arguments.folder) / "store"
        make_bundle(bundles, arguments.documents, arguments.index, store, arguments.precision)
    os.sched_setaffinity(0, {LAST_CORE})
    studies = {"latency": _latency, "throughput": _throughput, "swaps": _swaps, "soak": _soak}
    studies[arguments.what](arguments, bundles)


def questions(count: int, seed: int = 1, words: int = 7) -> list[str]:
    """Return made-up short questions."""
    chosen = random.Random(seed)
    return [" ".join(chosen.choices(WORDS, k=words)) for _ in range(count)]


def _same(encoder: Any) -> Any:
    return encoder


def _encoder(prompt: str, precision: Any, texts: list[str], store: Any) -> Any:
    """Return MiniLM with a prompt before queries; in int8 by OpenVINO, calibrated on some texts."""
    from dataclasses import replace

    from minilm import MODEL, compute_in_int8

    int8 = precision == "int8"
    encoder = replace(MODEL, query_prompt=prompt, precision="fp32" if int8 else precision).load("cpu")
    if int8:
        compute_in_int8(encoder, texts[:CALIBRATED], "openvino", store)
    return encoder


def make_bundle(folder: Path, count: int, index: Any, store_folder: Path, precision: Any = "auto") -> None:
    """Make two versions: the second one's model puts a prompt before queries."""
    from datasets import Dataset
    from minilm import MODEL

    from embfit.bundle import BundleVersions
    from embfit.bundle.publishing import Contents, publish
    from embfit.evaluator import Retrieval
    from embfit.index import ApproximateBuilder, BM25Index, ExactBuilder
    from embfit.records import Collection
    from embfit.store import Store

    texts = [f"{text} {number}" for number, text in enumerate(questions(count, seed=0))]
    corpus = Dataset.from_dict({"_id": [f"d{row}" for row in range(count)], "title": [""] * count, "text": texts})
    asked = Dataset.from_dict({"_id": [f"q{row}" for row in range(20)], "text": questions(20)})
    qrels = {"test": {f"q{row}": {f"d{row}": 1} for row in range(20)}}  # nothing is concluded from these
    collection = Collection(NAME, corpus, asked, qrels)
    words = BM25Index.build(texts, source=collection.corpus_digest)
    versions = BundleVersions(folder, NAME)
    builder = ExactBuilder() if index == "exact" else ApproximateBuilder(index)
    for prompt in ("", "the thing that is asked for here is this: "):
        store = Store(store_folder)
        encoder = _encoder(prompt, precision, texts, store)
        context = Retrieval(near_copy=None).context(collection, store, MODEL, load=partial(_same, encoder))
        publish(versions, Contents(encoder, collection, builder, words), [context], store)
    champion, other = versions.numbers()[-2:]  # latency is that of the model without a prompt
    versions.point({"champion": champion, "previous": other})


@contextmanager
def serving(bundles: Path, *overrides: str) -> Iterator[tuple[str, int]]:
    """Serve a bundle in a process on the first core; give its URL and the process's number."""
    run = bundles / "runs" / str(time.time_ns())
    command = ["task=serve", f"bundle.dir={bundles}", f"bundle.name={NAME}", "server.port=0", "trainer=cpu"]
    process = subprocess.Popen(
        ["taskset", "-c", str(FIRST_CORE), sys.executable, "-m", "embfit", *command, f"run.dir={run}", *overrides],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        log = run / "log.txt"
        while not (log.is_file() and (found := re.search(r"answers at (\S+)", log.read_text()))):
            if process.poll() is not None:
                raise SystemExit(f"the server has ended; see {log}")
            time.sleep(0.2)
        yield found[1], process.pid
    finally:
        process.terminate()
        process.wait()


class Client:
    """One connection that stays open."""

    def __init__(self, url: str) -> None:
        self.path = urlsplit(url).path
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)

    def post(self, body: Mapping[str, object]) -> tuple[int, Mapping[str, str], bytes]:
        """Send a body; return the status, the headers and the answer."""
        self._connection.request("POST", self.path, json.dumps(body), {"content-type": "application/json"})
        answer = self._connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


def _latency(arguments: argparse.Namespace, bundles: Path) -> None:
    asked = questions(arguments.requests + WARM)
    bodies: Mapping[str, Callable[[str], dict[str, object]]] = {
        "/v1/embeddings": lambda text: {"input": text, "model": f"{NAME}-query", "encoding_format": "base64"},
        "/v1/search": lambda text: {"query": text, "k": FIRST},
        "/v1/search hybrid": lambda text: {"query": text, "k": FIRST, "mode": "hybrid"},
    }
    with serving(bundles, *arguments.server) as (url, process):
        server = psutil.Process(process)
        for name, body in bodies.items():
            client = Client(url + name.split()[0])
            taken, inside = [], []
            for number, text in enumerate(asked):
                if number == WARM:
                    before = sum(server.cpu_times()[:2])
                started = time.perf_counter()
                status, headers, _ = client.post(body(text))
                taken.append(1000 * (time.perf_counter() - started))
                inside.append(float(headers["x-inference-time"]))
                assert status == 200
            used = 1000 * (sum(server.cpu_times()[:2]) - before) / arguments.requests
            model = statistics.median(inside[WARM:])
            print(f"{name}: {_percentiles(taken[WARM:])}; of that the model p50 {model:.1f} ms")
            print(f"    processor time of the server: {used:.1f} ms a request")


def _throughput(arguments: argparse.Namespace, bundles: Path) -> None:
    with ExitStack() as stack:
        batched, _ = stack.enter_context(serving(bundles, *arguments.server))
        single, _ = stack.enter_context(serving(bundles, "server.token_budget=1", *arguments.server))
        servers = {"in batches": (f"{batched}/v1/embeddings", NAME), "text by text": (f"{single}/v1/embeddings", NAME)}
        reached: dict[str, list[float]] = {name: [] for name in servers}
        for turn in range(arguments.turns):
            for name, (url, model) in servers.items():
                rate, taken = load(url, model, arguments.clients, arguments.seconds)
                reached[name].append(rate)
                print(f"turn {turn + 1}, {name}: {rate:.0f} texts a second; {_percentiles(taken)}", flush=True)
        base = statistics.median(reached["in batches"])
        for name, rates in reached.items():
            print(f"{name}: median {statistics.median(rates):.0f}; in batches is {base / statistics.median(rates):.2f}")


def load(url: str, model: str, clients: int, seconds: float) -> tuple[float, list[float]]:
    """Let clients ask for one text at a time; return texts a second, and the milliseconds of each request."""
    texts = questions(4096, seed=2)
    end = time.perf_counter() + seconds
    taken: list[list[float]] = [[] for _ in range(clients)]

    def ask(number: int) -> None:
        client = Client(url)
        place = number
        while (started := time.perf_counter()) < end:
            text = texts[place % len(texts)]
            status, _, _ = client.post({"input": text, "model": model, "encoding_format": "base64"})
            assert status == 200
            taken[number].append(1000 * (time.perf_counter() - started))
            place += clients

    _in_threads(ask, clients)
    everything = [one for mine in taken for one in mine]
    return len(everything) / seconds, everything


def _swaps(arguments: argparse.Namespace, bundles: Path) -> None:
    """Promote and roll back under load, and hold every answer to what the version that it names answers."""
    from embfit.bundle import BundleVersions, open_bundle
    from embfit.bundle.promotion import rollback

    versions = BundleVersions(bundles, NAME)
    asked = questions(50, seed=3)
    known: dict[str, dict[str, list[str]]] = {}
    for number in versions.numbers():
        with open_bundle(versions.folder, number, "cpu") as bundle:
            hits = bundle.searcher.hits(bundle.searcher.search(asked, FIRST))
            known[bundle.label] = {text: [hit.id for hit in mine] for text, mine in zip(asked, hits, strict=True)}
    counts = {"right": 0, "mixed": 0, "failed": 0}
    told = threading.Lock()
    over = threading.Event()
    with serving(bundles, "server.follow_seconds=0.05", *arguments.server) as (url, process):

        def ask(number: int) -> None:
            client = Client(f"{url}/v1/search")
            chosen = random.Random(number)
            while not over.is_set():
                text = chosen.choice(asked)
                status, headers, answer = client.post({"query": text, "k": FIRST, "texts": False})
                if status != 200:
                    outcome = "failed"
                else:
                    ids = {hit["id"] for hit in json.loads(answer)["data"][0]["documents"]}
                    mine, *others = sorted(known, key=lambda label: label != headers["x-embfit-bundle"])
                    # beside other texts the last place may go to a document of the same score
                    right = len(ids & {*known[mine][text]}) >= FIRST - 1
                    outcome = "right" if right else "mixed"
                    assert all(len({*known[mine][text]} & {*known[other][text]}) < FIRST for other in others) or right
                with told:
                    counts[outcome] += 1

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        told_after = {round(share * arguments.swaps) for share in (0, 0.25, 0.5, 0.75, 1)}
        for done in range(arguments.swaps + 1):
            if done in told_after:
                print(f"{done} swaps: {counts}, {Held.by(process)}", flush=True)
            if done < arguments.swaps:
                now, _ = rollback(versions)
                _until_served(url, f"{NAME}@{now}")
        over.set()
        for thread in threads:
            thread.join()
    print(f"answers: {counts}")


@dataclass(frozen=True)
class Held:
    """What a process holds: resident memory in MB, descriptors and threads."""

    memory: float
    descriptors: int
    threads: int

    @classmethod
    def by(cls, process: int) -> Held:
        """Look at a process."""
        found = psutil.Process(process)
        return cls(found.memory_info().rss / 1e6, found.num_fds(), found.num_threads())

    def __str__(self) -> str:
        return f"{self.memory:.0f} MB, {self.descriptors} descriptors, {self.threads} threads"


def _soak(arguments: argparse.Namespace, bundles: Path) -> None:
    """Let clients ask without a pause for texts of one word to long ones, and look at what the server holds."""
    end = time.monotonic() + 60 * arguments.minutes
    counts = {"answered": 0, "failed": 0}
    told = threading.Lock()

    def ask(number: int) -> None:
        chosen = random.Random(number)
        clients = [Client(f"{url}{route}") for route in ("/v1/embeddings", "/v1/search")]
        while time.monotonic() < end:
            text = " ".join(chosen.choices(WORDS, k=chosen.choice((1, 3, 7, 7, 7, 60, 300))))
            kind = chosen.randrange(2)
            body = {"input": text, "encoding_format": "base64"} if not kind else {"query": text, "k": FIRST}
            status, _, _ = clients[kind].post({**body, "model": NAME})
            with told:
                counts["answered" if status == 200 else "failed"] += 1

    seen: list[Held] = []
    with serving(bundles) as (url, process):
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(arguments.clients)]
        for thread in threads:
            thread.start()
        for tenth in range(SOAK_LOOKS + 1):
            time.sleep(max(0.0, end - time.monotonic() - 60 * arguments.minutes * (1 - tenth / SOAK_LOOKS)))
            seen.append(Held.by(process))
            print(f"{arguments.minutes * tenth / SOAK_LOOKS:.1f} minutes: {counts}, {seen[-1]}", flush=True)
        for thread in threads:
            thread.join()
    later = seen[len(seen) // 2 :]
    minutes = arguments.minutes * (len(later) - 1) / SOAK_LOOKS
    slope = statistics.linear_regression(range(len(later)), [held.memory for held in later]).slope
    print(f"in the second half: {slope * (len(later) - 1):+.1f} MB in {minutes:.1f} minutes; {counts['failed']} failed")


def _until_served(url: str, label: str) -> None:
    """Wait until a version answers."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    while True:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        answer.read()
        if answer.getheader("x-embfit-bundle") == label:
            return
        time.sleep(0.02)


def _in_threads(call: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=call, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _percentiles(taken: list[float]) -> str:
    cuts = statistics.quantiles(taken, n=100)
    return f"p50 {cuts[49]:.1f} ms, p95 {cuts[94]:.1f} ms, p99 {cuts[98]:.1f} ms"


if __name__ == "__main__":
    main()
