"""How long `task=index` takes on a folder of documents, and again after some of them have changed.

The folder has one Markdown file for each of the first documents of a collection in the BEIR layout. Then some files are
changed, some are added and some are removed. Each line is one run, with its processor seconds and what the manifest
says of its documents.

    python scripts/benchmarks/incremental_index.py --data DIR --documents 1000 model=minilm
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from embfit.bundle import BundleVersions


def main() -> None:
    """Index, change, index again; print a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder in the BEIR layout")
    parser.add_argument("--documents", type=int, default=1_000)
    parser.add_argument("--changed", type=int, default=10, help="documents changed, and as many added and removed")
    parser.add_argument("overrides", nargs="*", help="further KEY=VALUE of task=index")
    arguments = parser.parse_args()
    with (arguments.data / "corpus.jsonl").open(encoding="utf-8") as file:
        texts = [json.loads(line) for line in islice(file, arguments.documents + arguments.changed)]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "documents").mkdir()
        for number, row in enumerate(texts[: arguments.documents]):
            _write(work, number, row)
        _run(work, "all", arguments.overrides)
        _run(work, "nothing changed", arguments.overrides)
        for number in range(arguments.changed):
            _write(work, number, texts[number] | {"text": texts[number]["text"] + " It was changed."})
            (work / "documents" / f"{arguments.documents - 1 - number}.md").unlink()
            _write(work, arguments.documents + number, texts[arguments.documents + number])
        _run(work, f"{arguments.changed} changed, added and removed", arguments.overrides)


def _write(work: Path, number: int, row: dict[str, str]) -> None:
    (work / "documents" / f"{number}.md").write_text(f"# {row['title']}\n\n{row['text']}\n", encoding="utf-8")


def _run(work: Path, what: str, overrides: Sequence[str]) -> None:
    command = [sys.executable, "-m", "embfit", "index", "bundle.name=docs", "data=documents", "data.path=documents"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*command, f"run.dir=runs/{what.split()[0]}", *overrides], cwd=work, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    versions = BundleVersions(work / "bundles", "docs")
    found = versions.manifest(versions.numbers()[-1]).documents
    counts = f"documents {found.count:,}, encoded {found.encoded:,}, reused {found.reused:,}, removed {found.removed:,}"
    print(f"{what}: {seconds:.1f} s; {counts}", flush=True)


if __name__ == "__main__":
    main()
