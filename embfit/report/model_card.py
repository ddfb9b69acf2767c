"""The model card: what the model is, what it was measured to do, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from embfit.records import Comparison, Report
from embfit.report.wording import certainty
from embfit.store import write_text
from embfit.version import __version__

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

USE_CROSS_ENCODER = """With sentence-transformers (scores are logits; higher is more relevant):

```python
from sentence_transformers import CrossEncoder

print(CrossEncoder("FOLDER").predict([("a question", "a document"), ("a question", "another document")]))
```

With embfit, as the teacher of an encoder:

```sh
python -m embfit experiment=distill miner.model=FOLDER
```"""

ADAPTER = """

The folder holds a LoRA adapter. All of these find its base by the name or path in `adapter_config.json`, and need
`pip install peft`."""


def write_card(folder: Path, base: str, report: Report, config: Mapping[str, Any], cross_encoder: bool = False) -> None:
    """Write `README.md` into a model folder.

    Args:
        folder: of the saved model.
        base: name or path of the model that training started from.
        report: of the run; its first comparison is base against tuned.
        config: of the run, resolved.
        cross_encoder: it scores pairs; `base` and `tuned` are then its first stage's ranking and its own.
    """
    feature = "cross-encoder" if cross_encoder else "feature-extraction"
    front = {
        "base_model": base,
        "library_name": "sentence-transformers",
        "pipeline_tag": "text-ranking" if cross_encoder else "sentence-similarity",
        "tags": ["embfit", "sentence-transformers", feature, "retrieval"],
    }
    kind = "cross-encoder that reranks documents" if cross_encoder else "text-embedding model for retrieval"
    use = USE + (ADAPTER if (folder / "adapter_config.json").is_file() else "")
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=True)}---",
        f"# {base.rsplit('/', 1)[-1]}, fine-tuned for {report.data['name']}",
        f"A {kind}, fine-tuned with embfit {__version__} from `{base}`.",
        "## Measured",
        _measured(report),
        "## Use",
        USE_CROSS_ENCODER if cross_encoder else use,
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
