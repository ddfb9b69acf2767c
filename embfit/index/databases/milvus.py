"""Milvus: a collection for each version, and an alias for other applications."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from embfit.credentials import check_address, read_key
from embfit.errors import ConfigError, UnavailableError, UserError, first_line
from embfit.index.databases.database import SEPARATOR, Description, metadata, refused
from embfit.index.databases.database_index import DatabaseBuilder
from embfit.index.protocol import NOTHING
from embfit.type_hints import Location

if TYPE_CHECKING:
    from pymilvus import MilvusClient

URL = "http://localhost:19530"  # of a server, for messages
MAX_K = 16_384  # Milvus's limit of topK
MOST_DIMENSIONS = 32_768
TEXT_BYTES = 65_535  # Milvus's limit of VARCHAR
PROPERTY = "embfit"  # the collection property that stores the description
UNREACHABLE = 2  # pymilvus's code for a server that it cannot reach
NOT_FOUND = 100  # Milvus's code for a missing collection; Milvus Lite uses it for a missing alias too
NO_ALIAS = 1600  # Milvus's code for a missing alias

Result = TypeVar("Result")


@dataclass(frozen=True)
class MilvusBuilder(DatabaseBuilder):
    """A collection in Milvus for each version of a bundle, and an alias that names the champion's.

    Collections have the fields `position` (the document's row in the version), `id`, `title`, `text`, `metadata` (JSON)
    and `embedding`; texts are cut at Milvus's limit of 65,535 bytes. Extra `milvus`.

    Args:
        url: the server's address, such as http://localhost:19530.
        key_variable: the *name* of the environment variable that holds the token (`user:password`, or an API key); None
            for none.
        database: Milvus's database.
        method: a graph that proposes documents (`hnsw`), or a comparison of every vector (`exact`).
        m: links of a document in a layer of the graph.
        ef_construction: how many candidates are examined to place a document in the graph.
        ef_search: the least number of candidates that are examined for a query.
        timeout: seconds that a request may take.

    Raises:
        ConfigError: pymilvus is not installed, or the address is invalid or contains a secret.
    """

    kind: ClassVar[str] = "milvus"

    url: Annotated[str | None, Location(required=True, example=f"{URL}, the server's address", service=True)] = None
    key_variable: str | None = None
    database: str = "default"
    method: Literal["hnsw", "exact"] = "hnsw"
    m: Annotated[int, Field(ge=2, le=2048)] = 16
    ef_construction: Annotated[int, Field(ge=4)] = 64
    ef_search: Annotated[int, Field(ge=1)] = 100
    timeout: Annotated[float, Field(gt=0)] = 30.0

    def make_database(self) -> MilvusDatabase:
        """Return the database, without connecting to it."""
        return MilvusDatabase(self)


@lru_cache
def _client(url: str, token: str, database: str, timeout: float) -> MilvusClient:
    """Return the client of a server, which all versions of a bundle and all threads share."""
    from pymilvus import MilvusClient

    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it also logs a traceback of each error that it raises
    return MilvusClient(url, token=token, db_name=database, timeout=timeout)


@dataclass(frozen=True)
class MilvusDatabase:
    """A database of a Milvus server.

    Args:
        settings: its address, and how its collections are built and searched.
    """

    settings: MilvusBuilder

    def __post_init__(self) -> None:
        try:
            import pymilvus
        except ImportError as error:
            raise ConfigError("index=milvus needs pymilvus; install it with: pip install 'embfit[milvus]'") from error
        assert pymilvus
        check_address(self.settings.url or "", "index.url", URL)

    @property
    def place(self) -> str:
        """The address and the database."""
        return f"Milvus at {self.settings.url}, {self.settings.database}"

    @property
    def max_k(self) -> int:
        """The most documents that one search returns."""
        return MAX_K

    def check_fits(self, bundle: str, width: int) -> None:
        """Check that Milvus allows a bundle's name and the dimensions of its vectors.

        Raises:
            ValueError: the name has other characters than letters, digits and underscores, starts with a digit or is
                too long; or there are too many dimensions.
        """
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,200}", bundle):
            raise ValueError(
                f"a collection of Milvus cannot be called {bundle}: its name is limited to 201 letters, digits and "
                "underscores, and does not start with a digit; rename the bundle (bundle.name)"
            )
        if width > MOST_DIMENSIONS:
            raise ValueError(
                f"Milvus allows {MOST_DIMENSIONS:,} dimensions, and these vectors have {width:,}; use another model"
            )

    def collections(self, bundle: str) -> Mapping[str, Description | None]:
        """Return the names of all collections of a bundle's name, with the descriptions in their properties."""

        def work(client: MilvusClient) -> dict[str, Description | None]:
            names = (name for name in client.list_collections(timeout=self.settings.timeout) if _is_of(name, bundle))
            return {name: Description.of(self._properties(client, name).get(PROPERTY)) for name in names}

        return self._do(work)

    def create(self, name: str, width: int, description: Description) -> None:
        """Create an empty collection and its search index."""
        from pymilvus import DataType

        given = self.settings

        def work(client: MilvusClient) -> None:
            schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("position", DataType.INT64, is_primary=True)
            for column in ("id", "title", "text"):
                schema.add_field(column, DataType.VARCHAR, max_length=TEXT_BYTES)
            schema.add_field("metadata", DataType.JSON)
            schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=width)
            index = client.prepare_index_params()
            if given.method == "hnsw":
                parameters = {"M": given.m, "efConstruction": given.ef_construction}
                index.add_index("embedding", index_type="HNSW", metric_type="IP", params=parameters)
            else:
                index.add_index("embedding", index_type="FLAT", metric_type="IP")
            properties = {PROPERTY: description.text()}
            client.create_collection(
                name, schema=schema, index_params=index, properties=properties, timeout=given.timeout
            )

        self._do(work)

    def rename(self, name: str, new: str) -> None:
        """Rename a collection."""
        self._do(lambda client: client.rename_collection(name, new, timeout=self.settings.timeout))

    def describe(self, name: str, description: Description) -> None:
        """Store the description of a collection as its property."""
        given = {PROPERTY: description.text()}
        self._do(lambda client: client.alter_collection_properties(name, given, timeout=self.settings.timeout))

    def count(self, name: str) -> int:
        """Return the number of vectors of a collection, including those just sent."""

        def work(client: MilvusClient) -> int:
            client.load_collection(name, timeout=self.settings.timeout)
            options: dict[str, Any] = {"consistency_level": "Strong", "timeout": self.settings.timeout}
            [found] = client.query(name, filter="", output_fields=["count(*)"], **options)
            return int(found["count(*)"])

        return self._do(work)

    def width(self, name: str) -> int:
        """Return the number of dimensions of the vectors' field."""

        def work(client: MilvusClient) -> int:
            fields = client.describe_collection(name, timeout=self.settings.timeout)["fields"]
            return next((int(field["params"]["dim"]) for field in fields if field["name"] == "embedding"), 0)

        return self._do(work)

    def add(self, name: str, first: int, vectors: np.ndarray, documents: pa.Table) -> None:
        """Add documents, replacing those of the same rows."""
        rows = [
            {"position": row, "embedding": vector, "id": _cut(document["_id"]), "metadata": metadata(document)}
            | {column: _cut(document.get(column) or "") for column in ("title", "text")}
            for row, (vector, document) in enumerate(zip(vectors, documents.to_pylist(), strict=True), first)
        ]
        self._do(lambda client: client.upsert(name, rows, timeout=self.settings.timeout))

    def finish(self, name: str) -> None:
        """Seal the documents that were sent, so that Milvus indexes them."""

        def work(client: MilvusClient) -> None:
            client.flush(name, timeout=self.settings.timeout)
            client.load_collection(name, timeout=self.settings.timeout)

        self._do(work)

    def propose(self, name: str, queries: np.ndarray, k: int) -> np.ndarray:
        """Return the rows of k documents that probably have the highest inner products: [Q, D] → [Q, k]."""
        given = self.settings
        wanted = {"metric_type": "IP", "params": {"ef": max(k, given.ef_search)} if given.method == "hnsw" else {}}

        def work(client: MilvusClient) -> np.ndarray:
            hits = client.search(name, data=list(queries), limit=k, search_params=wanted, timeout=given.timeout)
            found = np.full((len(queries), k), NOTHING)
            for query, documents in enumerate(hits):
                found[query, : len(documents)] = [hit["position"] for hit in documents]
            return found

        return self._do(work)

    def alias_target(self, alias: str) -> str | None:
        """Return the name of the collection that an alias points to; None if there is no such alias.

        Raises:
            UserError: a collection has the alias's name.
        """
        from pymilvus import MilvusException

        def work(client: MilvusClient) -> str | None:
            if alias in client.list_collections(timeout=self.settings.timeout):
                raise UserError(
                    f"{self.place} has a collection called {alias}, the name that the alias needs; rename the bundle "
                    "(bundle.name)"
                )
            try:
                return str(client.describe_alias(alias, timeout=self.settings.timeout)["collection_name"])
            except MilvusException as error:
                if error.code in (NO_ALIAS, NOT_FOUND):
                    return None
                raise

        return self._do(work)

    def set_alias(self, alias: str, name: str) -> None:
        """Point an alias to a collection; Milvus does it atomically."""
        known = self.alias_target(alias)

        def work(client: MilvusClient) -> None:
            move = client.create_alias if known is None else client.alter_alias
            move(collection_name=name, alias=alias, timeout=self.settings.timeout)

        self._do(work)

    def drop(self, name: str) -> None:
        """Remove a collection."""
        self._do(lambda client: client.drop_collection(name, timeout=self.settings.timeout))

    def _properties(self, client: MilvusClient, name: str) -> Mapping[str, str]:
        found: Mapping[str, str] = client.describe_collection(name, timeout=self.settings.timeout)["properties"]
        return found

    def _do(self, work: Callable[[MilvusClient], Result]) -> Result:
        """Do work with the client, which reconnects by itself.

        Raises:
            UnavailableError: the server does not answer.
            UserError: it rejects the work, or a collection is missing.
        """
        import grpc
        from pymilvus import MilvusException

        given = self.settings
        try:
            key = read_key(given.key_variable, "index.key_variable") or ""
            return work(_client(str(given.url), key, given.database, given.timeout))
        except grpc.RpcError as error:
            raise self._unavailable(error) from error
        except MilvusException as error:
            if error.code == NOT_FOUND:
                message = f"{self.place}: {error.message.strip()}; make a new version (task=index)"
                raise UserError(message) from error
            if isinstance(error.code, grpc.StatusCode) or error.code == UNREACHABLE or "Retry" in error.message:
                raise self._unavailable(error) from error
            raise refused(self.place, error.message.strip().splitlines()[0]) from error

    def _unavailable(self, error: BaseException) -> UnavailableError:
        why = str(getattr(error, "message", "")) or first_line(error)
        return UnavailableError(
            f"{self.place} does not answer within index.timeout={self.settings.timeout:g} s ({why.splitlines()[0]}); "
            "start it, or check index.url, and run the same command again; earlier batches are kept"
        )


def _is_of(name: str, bundle: str) -> bool:
    """Return whether a collection is named like a version of a bundle."""
    return name.startswith(bundle + SEPARATOR) and name[len(bundle + SEPARATOR) :].isdecimal()


def _cut(text: str) -> str:
    """Return a text cut to Milvus's limit, between two characters."""
    encoded = text.encode()
    return text if len(encoded) <= TEXT_BYTES else encoded[:TEXT_BYTES].decode(errors="ignore")
