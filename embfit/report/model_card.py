"""The model card: what the model is, what it was measured to do, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from embfit.atomic_files import write_text
from embfit.records import Comparison, Report
from embfit.report.formatting import certainty
from embfit.version import __version__


@dataclass(frozen=True)
class CardKind:
    """What the card of a kind of model says.

    Args:
        words: what it is.
        use: how it is used.
        task: the Hub's name of what it does.
        library: the Hub's name of what loads it.
        tag: the Hub's word for the kind.
    """

    words: str
    use: str
    task: str
    library: str
    tag: str


USE = """With sentence-transformers (the folder carries pooling, length and prompts):

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("FOLDER")
queries = model.encode(["a question"], prompt_name="query")
documents = model.encode(["a document"], prompt_name="document")
print(model.similarity(queries, documents))
```

With embfit:

```sh
python -m embfit task=search query="a question" tuned=FOLDER data=beir data.path=DIR
```

With transformers alone, do what `1_Pooling/config.json` and `config_sentence_transformers.json` say: put the prompt in
front, pool the last hidden states, and normalise."""

USE_LATE_INTERACTION = """With sentence-transformers from 6 on, or with PyLate (the folder carries markers, lengths and
the projection):

```python
from sentence_transformers import MultiVectorEncoder

model = MultiVectorEncoder("FOLDER")
queries = model.encode_query(["a question"])
documents = model.encode_document(["a document"])
print(model.similarity(queries, documents))
```

```python
from pylate import models

documents = models.ColBERT("FOLDER").encode(["a document"], is_query=False)
```

With embfit:

```sh
python -m embfit task=search query="a question" tuned=FOLDER data=beir data.path=DIR
```

Both add up what embfit takes the mean of: the highest cosine of each query vector with one of
the document's."""

USE_CROSS_ENCODER = """With sentence-transformers (scores are logits; higher is more relevant):

```python
from sentence_transformers import CrossEncoder

print(CrossEncoder("FOLDER").predict([("a question", "a document"), ("a question", "another document")]))
```

With embfit, as the teacher of an encoder:

```sh
python -m embfit experiment=distill miner.model=FOLDER
```"""

KINDS: Mapping[str, CardKind] = {
    "encoder": CardKind(
        "text-embedding model for retrieval", USE, "sentence-similarity", "sentence-transformers", "feature-extraction"
    ),
    "late interaction": CardKind(
        "late-interaction (ColBERT) model for retrieval",
        USE_LATE_INTERACTION,
        "sentence-similarity",
        "PyLate",
        "ColBERT",
    ),
    "cross-encoder": CardKind(
        "cross-encoder that reranks documents",
        USE_CROSS_ENCODER,
        "text-ranking",
        "sentence-transformers",
        "cross-encoder",
    ),
}

ADAPTER = """

The folder holds a LoRA adapter. All of these find its base by the name or path in `adapter_config.json`, and need
`pip install peft`."""


def write_card(folder: Path, base: str, report: Report, config: Mapping[str, Any], kind: str) -> None:
    """Write `README.md` into a model folder.

    Args:
        folder: of the saved model.
        base: name or path of the model that training started from.
        report: of the run; its first comparison is base against tuned.
        config: of the run, resolved.
        kind: which of `KINDS` it is; of a cross-encoder, `base` and `tuned` are its first stage's ranking and its own.
    """
    found = KINDS[kind]
    front = {
        "base_model": base,
        "library_name": found.library,
        "pipeline_tag": found.task,
        "tags": ["embfit", "sentence-transformers", found.tag, "retrieval"],
    }
    adapter = ADAPTER if (folder / "adapter_config.json").is_file() else ""
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=True)}---",
        f"# {base.rsplit('/', 1)[-1]}, fine-tuned for {report.data['name']}",
        f"A {found.words}, fine-tuned with embfit {__version__} from `{base}`.",
        "## Measured",
        _measured(report),
        "## Use",
        found.use + adapter,
        "## Training",
        _training(report),
        f"<details><summary>Configuration</summary>\n\n```yaml\n{_public(config)}```\n</details>",
    ]
    write_text(folder / "README.md", "\n\n".join(parts) + "\n")


def _measured(report: Report) -> str:
    systems = report.evaluations
    names = list(systems[0].metrics)
    rows = [
        f"| {system.system} | " + " | ".join(f"{system.metrics[name]:.4f}" for name in names) + " |"
        for system in systems
    ]
    table = [f"| system | {' | '.join(names)} |", "|---|" + "---:|" * len(names), *rows]
    queries = len(next(iter(systems[0].per_query.values())))
    said = [
        _said(found)
        for found in report.comparisons
        if found.metric == names[0] and (found.a, found.b) == ("base", "tuned")
    ]
    return "\n".join(
        [f"On the {systems[0].split} split ({queries} queries) of {report.data['name']}:", "", *table, "", *said]
    )


def _said(found: Comparison) -> str:
    return (
        f"- {found.metric}, {found.subset} queries ({found.queries}): {found.difference:+.4f} against the base model, "
        f"{certainty(found.ci95)}, p = {found.p:.4f}."
    )


def _training(report: Report) -> str:
    facts = report.training
    kept = ", which the dev split chose" if facts["history"] else ""
    digests = {key: value for key, value in report.data.items() if key.endswith("_sha256")}
    return "\n".join(
        [
            f"- {facts['steps']} steps ({facts['epochs']:.2f} epochs); the weights are those of step "
            f"{facts['kept_step']}{kept}.",
            f"- Negatives: {report.mining['miner']}.",
            *(f"- {name}: `{value}`" for name, value in digests.items()),
        ]
    )


def _public(config: Mapping[str, Any]) -> str:
    """Return the configuration without what belongs to one machine or one run."""
    private = ("run", "store", "logger", "resume", "query", "hydra")
    kept = {key: value for key, value in config.items() if key not in private}
    text: str = yaml.safe_dump(kept, sort_keys=False)
    return text
