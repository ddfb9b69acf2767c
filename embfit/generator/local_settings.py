"""The settings of a language model that writes queries in this process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from embfit.generator.documents import DocumentChoice
from embfit.generator.filters import Filters
from embfit.generator.plan import Wanted
from embfit.generator.prompt_pieces import LocalForm
from embfit.generator.sampling import Sampling
from embfit.model.precision import Precision
from embfit.records import Collection, Seed
from embfit.style import FewShot, Style, StyleExample
from embfit.type_hints import Location


@dataclass(frozen=True, kw_only=True)
class LanguageModelSettings:
    """Which language model writes in this process, how it draws tokens, and the documents that it writes about.

    Args:
        model: a folder, a `.gguf` file, or a name on the Hub.
        revision: branch, tag or commit on the Hub; None is the newest.
        gguf: the name of a GGUF file in the folder or on the Hub; None for a model in transformers' own form.
        temperatures: the sampling temperatures of a document's queries, used in turn.
        top_p: tokens are drawn from the most probable ones whose probabilities add up to this.
        top_k: tokens are drawn from at most this many of the most probable ones.
        max_tokens: the most tokens of a query; one that has not ended by then is dropped.
        document_tokens: how many tokens of a document are read.
        batch_size: the number of documents in a batch; halved if memory is short.
        device: the device that computes: auto, cpu, cuda or mps.
        precision: the number format that the model computes in.
        queries: the number of queries of each document; `auto` is 50,000 divided by the number of documents, within 3
            to 10.
        documents: which documents get queries.
        filters: which queries are kept.
        journal: the file that records what was written; None is one in the store.
        seed: draws tokens, documents and examples.
    """

    model: Annotated[str | None, Location(required=True, example="FOLDER, FILE.gguf or a name on the Hub")] = None
    revision: str | None = None
    gguf: str | None = None
    temperatures: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (0.5, 0.7, 1.0)
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    top_k: Annotated[int, Field(ge=1)] = 256
    max_tokens: Annotated[int, Field(ge=1)] = 48
    document_tokens: Annotated[int, Field(ge=8)] = 200
    batch_size: Annotated[int, Field(ge=1)] = 48
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Precision = "auto"
    queries: Wanted = "auto"
    documents: DocumentChoice = field(default_factory=DocumentChoice)
    filters: Filters = field(default_factory=Filters)
    journal: str | None = None
    seed: Seed = 0


@dataclass(frozen=True, kw_only=True)
class LocalSettings(LanguageModelSettings):
    """The settings of prompts and styles besides those of `LanguageModelSettings`.

    Args:
        form: `completion` continues a text (base models, and small ones); `chat` uses the model's chat template;
            `document` is the document alone (models that were trained so, such as docTTTTTquery).
        styles: the kinds of queries, each with its share.
        examples: few-shot examples; rotated ones come in four sets.
        language: the language of the queries, which `form=chat` names; None for each document's own.

    Raises:
        ValueError: a value is wrong.
    """

    styles: dict[str, Style]
    form: LocalForm = "completion"
    examples: FewShot = field(default_factory=FewShot)
    language: str | None = None

    def __post_init__(self) -> None:
        if not sum(style.share for style in self.styles.values()):
            raise ValueError("styles: no style has a share above 0")

    @property
    def name(self) -> str:
        """The generator's name in the provenance of queries."""
        return f"local ({self.model})"

    @property
    def sampling(self) -> Sampling:
        """How tokens are drawn."""
        return Sampling(self.temperatures, self.top_p, self.top_k, self.max_tokens)

    def example_pool(self, collection: Collection) -> list[StyleExample]:
        """Return the examples that prompts may contain; general ones if a base model would have none."""
        if self.form == "document":
            return self.examples.load(collection, self.seed)
        return self.examples.load_or_general(collection, self.seed)
