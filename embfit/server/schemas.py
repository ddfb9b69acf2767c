"""The fields of requests and answers, from which the OpenAPI schema is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool

from embfit.bundle.searching import Mode

InputType = Literal[
    "query", "search_query", "retrieval.query", "document", "passage", "search_document", "retrieval.passage"
]
"""OpenAI's clients send none; these are Cohere's, Jina's and NVIDIA's names."""


def _whole(text: str) -> str:
    """Refuse lone surrogates, which JSON can express and tokenizers cannot read."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"character {error.start} is half a character (a lone surrogate)") from error
    return text


Text = Annotated[str, AfterValidator(_whole)]


def _text_or_texts(value: Any) -> Any:
    """Check that a value is a text or a list of texts; the error names the first invalid item.

    Token ids come from another model's tokenizer and would be read as other words, so they are refused.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ValueError("expected a text or a list of texts")
    if not value:
        raise ValueError("there are no texts; send one at least")
    if all(isinstance(item, int | list) and not isinstance(item, bool) for item in value):
        raise ValueError(
            "token ids are of another tokenizer than this model's; send texts (in LangChain: "
            "OpenAIEmbeddings(check_embedding_ctx_length=False))"
        )
    if (wrong := next((place for place, item in enumerate(value) if not isinstance(item, str)), None)) is not None:
        raise ValueError(f"item {wrong} is not a text")
    return value


Texts = Annotated[Text | Annotated[list[Text], Field(min_length=1)], BeforeValidator(_text_or_texts)]


def listed(texts: str | list[str]) -> list[str]:
    """Return one text or several as a list."""
    return [texts] if isinstance(texts, str) else texts


class Body(BaseModel):
    """A request's body; unknown fields are refused, because they would otherwise be ignored silently."""

    model_config = ConfigDict(extra="forbid")


class EmbeddingsRequest(Body):
    """Texts to embed."""

    input: Texts
    model: str | None = Field(None, description="NAME, NAME@VERSION, or either with -query or -document behind it")
    input_type: InputType | None = Field(None, description="what the texts are; else the model's name says it")
    dimensions: int | None = Field(None, ge=1, description="one of those that the model was trained for")
    encoding_format: Literal["float", "base64"] = "float"
    truncate: StrictBool = Field(True, description="false refuses texts that are longer than the model reads")
    user: str | None = Field(None, description="ignored")


class SearchRequest(Body):
    """Queries to search the documents for."""

    query: Texts
    k: int = Field(10, ge=1, description="documents wanted of each query")
    mode: Mode = "dense"
    where: dict[str, Any] | None = Field(
        None, description="metadata column -> the value that it must have, or a list of which it must have one"
    )
    rerank: int | None = Field(None, ge=1, description="how many of the first documents the reranker reranks")
    texts: StrictBool = Field(True, description="false leaves out titles and texts")
    matches: StrictBool = Field(
        False, description="late interaction: which words of each document the query's words matched"
    )
    model: str | None = Field(None, description="NAME or NAME@VERSION")


class TextBody(Body):
    """A document in the object form that some clients send."""

    text: Text


class RerankRequest(Body):
    """Documents to order by how well they answer a query."""

    query: Text
    documents: list[Text | TextBody] = Field(min_length=1)
    top_n: int | None = Field(None, ge=1)
    return_documents: StrictBool = False
    raw_scores: StrictBool = Field(False, description="a cross-encoder's scores as they are, without the sigmoid")
    model: str | None = None


class TokenizeRequest(Body):
    """Texts to tokenise."""

    input: Texts
    model: str | None = None
    input_type: InputType | None = None


class Usage(BaseModel):
    """Tokens that were read."""

    prompt_tokens: int
    total_tokens: int


class Embedding(BaseModel):
    """The vector of a text: numbers, or in base64 the bytes of float32 numbers, little-endian."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingsAnswer(BaseModel):
    """Vectors, in the order of the texts."""

    object: Literal["list"]
    model: str
    input_type: Literal["query", "document"]
    data: list[Embedding]
    usage: Usage


class MatchedWord(BaseModel):
    """A word of the query; the word of the document that it matched, if it is one; and its share of the score."""

    word: str
    found: str | None
    share: float


class MatchedDocument(BaseModel):
    """The matched words of a document, and where they are: first character, last one + 1, share of the score."""

    words: list[MatchedWord]
    title: list[tuple[int, int, float]]
    text: list[tuple[int, int, float]]


class FoundDocument(BaseModel):
    """A document that was found."""

    id: str
    score: float
    title: str | None = None
    text: str | None = None
    metadata: dict[str, Any]
    matched: MatchedDocument | None = None


class SearchResult(BaseModel):
    """The documents of one query, best first."""

    object: Literal["search_result"]
    index: int
    documents: list[FoundDocument]


class SearchAnswer(BaseModel):
    """Results, in the order of the queries."""

    object: Literal["list"]
    model: str
    mode: Mode
    data: list[SearchResult]
    usage: Usage


class RerankedDocument(BaseModel):
    """A document's place among those that were sent, and its score."""

    index: int
    relevance_score: float
    document: TextBody | None = None


class RerankAnswer(BaseModel):
    """Documents, best first."""

    id: str
    model: str
    results: list[RerankedDocument]
    usage: Usage


class TokenizedText(BaseModel):
    """The token ids of a text with its prompt, as the model reads them."""

    index: int
    tokens: list[int]
    truncated: bool


class TokenizeAnswer(BaseModel):
    """Token ids, in the order of the texts."""

    model: str
    input_type: Literal["query", "document"]
    max_length: int
    data: list[TokenizedText]


class ServedModel(BaseModel):
    """A name that requests may give."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelsAnswer(BaseModel):
    """The names that requests may give."""

    object: Literal["list"]
    data: Sequence[ServedModel]


class State(BaseModel):
    """The server's state."""

    status: str


class ErrorBody(BaseModel):
    """An error's message and its details."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """The shape of every error answer."""

    error: ErrorBody
