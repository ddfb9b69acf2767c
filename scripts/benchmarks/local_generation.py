"""What `generator=local` gains by reading once: seconds a document, and tokens a second.

Four ways to write the same number of queries about the same documents, in rounds that alternate; the table has medians.
Few-shot examples are read once for all documents (prefix cache), or with each of them. A document is read once for all
of its queries, which are then written side by side (shared reading), or once for each query. Batches, sampling and
the limit of tokens are those of the generator. What is drawn differs between the two ways of reading, so that the
number of written tokens is told, too. Tokens are those of the documents, once, and of the queries: what is read again,
and the examples, are not counted, as in the report of a run.

    OMP_NUM_THREADS=2 python scripts/benchmarks/local_generation.py DIR FILE.gguf --documents 20 --rounds 3
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from embfit.data import Beir
from embfit.generator.decoding import CausalDecoding, Prompt
from embfit.generator.language_model import LanguageModel, ModelFiles
from embfit.generator.prompt_pieces import PromptPieces, prompt_pieces
from embfit.generator.sampling import Sampling
from embfit.store import Store
from embfit.style import FewShot, Style
from embfit.style.examples import GENERAL
from embfit.style.template import find_template

WAYS = ((True, True), (True, False), (False, True), (False, False))  # prefix cache, shared reading


@dataclass(frozen=True)
class Work:
    """What each way has to do.

    Args:
        model: writes.
        pieces: the tokens around each document.
        prompts: the documents.
        queries: of each document.
        sampling: how tokens are drawn.
        batch_size: documents at once.
    """

    model: LanguageModel
    pieces: PromptPieces
    prompts: Sequence[Prompt]
    queries: int
    sampling: Sampling
    batch_size: int

    def write(self, has_cache: bool, is_shared: bool) -> tuple[float, int, int]:
        """Write all queries in one way; return the seconds, and the number of tokens of documents and of queries."""
        started = time.monotonic()
        before = self.pieces.before
        decoding = CausalDecoding(self.model.model, self.model.stops, before if has_cache else ())
        ahead: Sequence[int] = () if has_cache else before
        prompts = [replace(prompt, tokens=[*ahead, *prompt.tokens]) for prompt in self.prompts]
        written = 0
        for start in range(0, len(prompts), self.batch_size):
            batch = prompts[start : start + self.batch_size]
            if is_shared:
                written += _count(decoding, batch, self.queries, self.sampling)
                continue
            for place in range(self.queries):
                alone = replace(self.sampling, temperatures=(self.sampling.temperature(place),))
                others = [replace(prompt, seed=prompt.seed + place) for prompt in batch]
                written += _count(decoding, others, 1, alone)
        return time.monotonic() - started, sum(len(prompt.tokens) for prompt in self.prompts), written


def main() -> None:
    """Measure, then print the table."""
    arguments = parser().parse_args()
    store = Store(arguments.store)
    model = ModelFiles.find(arguments.model, None, None, store).load(arguments.device, arguments.precision)
    if model.is_seq_to_seq:
        raise SystemExit(f"{arguments.model} has an encoder and a decoder, which has no prefix to keep")
    work = plan(arguments, model, store)
    print(
        f"{model.name}, {model.parameters / 1e6:.0f} million weights; {len(work.prompts)} documents of "
        f"{statistics.mean(len(prompt.tokens) for prompt in work.prompts):.0f} tokens, {work.queries} queries each, "
        f"examples of {len(work.pieces.before)} tokens"
    )
    replace(work, prompts=work.prompts[:2]).write(True, True)  # the first call of a model is slow
    found: dict[tuple[bool, bool], list[tuple[float, int, int]]] = {way: [] for way in WAYS}
    for number in range(arguments.rounds):
        for way in WAYS if number % 2 == 0 else WAYS[::-1]:
            found[way].append(work.write(*way))
    print(table(found, len(work.prompts)))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("data", help="a folder in the BEIR layout")
    found.add_argument("model", help="a causal model: a folder, a .gguf file, or a name on the Hub")
    found.add_argument("--documents", type=int, default=20)
    found.add_argument("--queries", type=int, default=3, help="of each document")
    found.add_argument("--examples", type=int, default=4, help="shown before each document")
    found.add_argument("--document-tokens", type=int, default=200, help="of a document are read")
    found.add_argument("--batch-size", type=int, default=48, help="documents at once")
    found.add_argument("--rounds", type=int, default=3)
    found.add_argument("--device", default="auto")
    found.add_argument("--precision", default="auto")
    found.add_argument("--store", default="outputs/store", help="keeps what was read from GGUF")
    return found


def plan(arguments: argparse.Namespace, model: LanguageModel, store: Store) -> Work:
    """Return what each way has to do: the first documents of the folder, longest first."""
    collection = Beir(arguments.data).load(store)
    few = FewShot(file=str(find_template(GENERAL)), count=arguments.examples, rotate=False)
    shown = few.choose(few.load(collection, 0), "question", "", 0)
    pieces = prompt_pieces("completion", Style("question.md", label="Question"), shown, model.tokenizer, None)
    texts = collection.document_texts(range(min(arguments.documents, len(collection.corpus))))
    tokens = [pieces.around(" ".join(text.split()), model.tokenizer, arguments.document_tokens) for text in texts]
    ordered = sorted(tokens, key=len, reverse=True)
    prompts = [Prompt(found, 1000 * seed) for seed, found in enumerate(ordered)]
    return Work(model, pieces, prompts, arguments.queries, Sampling(), arguments.batch_size)


def table(found: Mapping[tuple[bool, bool], Sequence[tuple[float, int, int]]], documents: int) -> str:
    """Return the medians over rounds as Markdown, and each time as a multiple of the first."""
    lines = [
        "| prefix cache | shared reading | seconds a document | tokens a second | tokens written | times as long |",
        "|---|---|---|---|---|---|",
    ]
    first = statistics.median(seconds for seconds, _, _ in found[WAYS[0]])
    for (has_cache, is_shared), rounds in found.items():
        seconds = statistics.median(one[0] for one in rounds)
        rate = statistics.median((read + written) / lasted for lasted, read, written in rounds)
        written = round(statistics.median(one[2] for one in rounds))
        named = ["yes" if has_cache else "no", "yes" if is_shared else "no"]
        cells = [*named, f"{seconds / documents:.3f}", f"{rate:,.0f}", f"{written:,}", f"{seconds / first:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _count(decoding: CausalDecoding, prompts: Sequence[Prompt], count: int, sampling: Sampling) -> int:
    """Write, and return how many tokens were written."""
    return sum(len(sample.tokens) for each in decoding.sample(prompts, count, sampling) for sample in each)


if __name__ == "__main__":
    main()
