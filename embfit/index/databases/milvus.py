"""Milvus: a collection for each version, and Milvus's own alias for other readers."""

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
DEEPEST = 16_384  # Milvus's limit of topK
MOST_DIMENSIONS = 32_768
TEXT_BYTES = 65_535  # Milvus's limit of VARCHAR
PROPERTY = "embfit"  # of a collection: its description
UNREACHABLE = 2  # pymilvus's code of a server that it does not reach
NOT_FOUND = 100  # Milvus's code of a collection that is not there; Milvus Lite says it of aliases, too
NO_ALIAS = 1600  # of an alias that is not there

Result = TypeVar("Result")


@dataclass(frozen=True)
class MilvusBuilder(DatabaseBuilder):
    """A collection in Milvus for each version of a bundle, and an alias that names the champion's.

    Collections have the fields `position` (the document's row in the version), `id`, `title`, `text`, `metadata` (JSON)
    and `embedding`; texts longer than Milvus keeps (65,535 bytes) are cut there. Extra `milvus`.

    Args:
        url: the server's address, such as http://localhost:19530.
        key_variable: the *name* of the environment variable that holds the token (`user:password`, or an API key); None
            for none.
        database: Milvus's database.
        method: a graph that proposes (`hnsw`), or every vector compared (`exact`).
        m: links of a document in a layer of the graph.
        ef_construction: documents that are looked at to place one in the graph.
        ef_search: documents that are looked at for a query, at least.
        timeout: seconds that a request may take.

    Raises:
        ConfigError: pymilvus is not installed, or the address is none or holds a secret.
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
        """Return the database, which is asked nothing yet."""
        return MilvusDatabase(self)


@lru_cache
def _client(url: str, token: str, database: str, timeout: float) -> MilvusClient:
    """Return the client of a server: versions of a bundle, and threads, share it."""
    from pymilvus import MilvusClient

    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it prints a traceback of what it raises, too
    return MilvusClient(url, token=token, db_name=database, timeout=timeout)


@dataclass(frozen=True)
class MilvusDatabase:
    """A database of a Milvus server.

    Args:
        settings: where it is, and how its collections are made and searched.
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
    def deepest(self) -> int:
        """Documents that a search returns at most."""
        return DEEPEST

    def check_fits(self, bundle: str, width: int) -> None:
        """Hold a bundle's name and vectors to what Milvus takes.

        Raises:
            ValueError: the name has other signs than letters, digits and underscores, or there are too many dimensions.
        """
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,200}", bundle):
            raise ValueError(
                f"a collection of Milvus cannot be called {bundle}: its name has letters, digits and underscores, and "
                "no digit at its beginning; rename the bundle (bundle.name)"
            )
        if width > MOST_DIMENSIONS:
            raise ValueError(f"Milvus takes {MOST_DIMENSIONS:,} dimensions, and these vectors have {width:,}")

    def collections(self, bundle: str) -> Mapping[str, Description | None]:
        """Return the collections of a bundle's name, with what their properties say."""

        def work(client: MilvusClient) -> dict[str, Description | None]:
            names = (name for name in client.list_collections(timeout=self.settings.timeout) if _is_of(name, bundle))
            return {name: Description.of(self._properties(client, name).get(PROPERTY)) for name in names}

        return self._do(work)

    def create(self, name: str, width: int, description: Description) -> None:
        """Make an empty collection with its index."""
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
        """Give a collection another name."""
        self._do(lambda client: client.rename_collection(name, new, timeout=self.settings.timeout))

    def describe(self, name: str, description: Description) -> None:
        """Write down what a collection is, in a property of its own."""
        given = {PROPERTY: description.text()}
        self._do(lambda client: client.alter_collection_properties(name, given, timeout=self.settings.timeout))

    def count(self, name: str) -> int:
        """Return how many vectors a collection has, those that were just sent among them."""

        def work(client: MilvusClient) -> int:
            client.load_collection(name, timeout=self.settings.timeout)
            asked: dict[str, Any] = {"consistency_level": "Strong", "timeout": self.settings.timeout}
            [found] = client.query(name, filter="", output_fields=["count(*)"], **asked)
            return int(found["count(*)"])

        return self._do(work)

    def width(self, name: str) -> int:
        """Return how many dimensions the field of vectors has."""

        def work(client: MilvusClient) -> int:
            fields = client.describe_collection(name, timeout=self.settings.timeout)["fields"]
            return next((int(field["params"]["dim"]) for field in fields if field["name"] == "embedding"), 0)

        return self._do(work)

    def add(self, name: str, first: int, vectors: np.ndarray, documents: pa.Table) -> None:
        """Send documents; those that are there already are replaced by themselves."""
        rows = [
            {"position": row, "embedding": vector, "id": _cut(document["_id"]), "metadata": metadata(document)}
            | {column: _cut(document.get(column) or "") for column in ("title", "text")}
            for row, (vector, document) in enumerate(zip(vectors, documents.to_pylist(), strict=True), first)
        ]
        self._do(lambda client: client.upsert(name, rows, timeout=self.settings.timeout))

    def finish(self, name: str) -> None:
        """Seal what was sent, so that it is indexed."""

        def work(client: MilvusClient) -> None:
            client.flush(name, timeout=self.settings.timeout)
            client.load_collection(name, timeout=self.settings.timeout)

        self._do(work)

    def propose(self, name: str, queries: np.ndarray, k: int) -> np.ndarray:
        """Return the rows of k documents that are likely to have the highest inner products: [Q, D] → [Q, k]."""
        given = self.settings
        wanted = {"metric_type": "IP", "params": {"ef": max(k, given.ef_search)} if given.method == "hnsw" else {}}

        def work(client: MilvusClient) -> np.ndarray:
            hits = client.search(name, data=list(queries), limit=k, search_params=wanted, timeout=given.timeout)
            found = np.full((len(queries), k), NOTHING)
            for query, theirs in enumerate(hits):
                found[query, : len(theirs)] = [hit["position"] for hit in theirs]
            return found

        return self._do(work)

    def shown(self, alias: str) -> str | None:
        """Return the name of the collection that an alias names.

        Raises:
            UserError: a collection has the alias's name.
        """
        from pymilvus import MilvusException

        def work(client: MilvusClient) -> str | None:
            if alias in client.list_collections(timeout=self.settings.timeout):
                raise UserError(
                    f"{self.place} has a collection called {alias}, which the alias would be; rename the bundle "
                    "(bundle.name)"
                )
            try:
                return str(client.describe_alias(alias, timeout=self.settings.timeout)["collection_name"])
            except MilvusException as error:
                if error.code in (NO_ALIAS, NOT_FOUND):
                    return None
                raise

        return self._do(work)

    def show(self, alias: str, name: str) -> None:
        """Let an alias name a collection; Milvus does it in one step."""
        known = self.shown(alias)

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
        """Do work with the client, which connects again by itself.

        Raises:
            UnavailableError: the server does not answer.
            UserError: it refuses, or a collection is gone.
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
                said = f"{self.place}: {error.message.strip()}; make a new version (task=index)"
                raise UserError(said) from error
            if isinstance(error.code, grpc.StatusCode) or error.code == UNREACHABLE or "Retry" in error.message:
                raise self._unavailable(error) from error
            raise refused(self.place, error.message.strip().splitlines()[0]) from error

    def _unavailable(self, error: BaseException) -> UnavailableError:
        why = str(getattr(error, "message", "")) or first_line(error)
        return UnavailableError(
            f"{self.place} does not answer within index.timeout={self.settings.timeout:g} s ({why.splitlines()[0]}); "
            "start it, or see index.url; what was written is kept, and the same command continues with it"
        )


def _is_of(name: str, bundle: str) -> bool:
    """Say whether a collection is named like a version of a bundle."""
    return name.startswith(bundle + SEPARATOR) and name[len(bundle + SEPARATOR) :].isdecimal()


def _cut(text: str) -> str:
    """Return a text as Milvus can keep it, cut between two characters."""
    encoded = text.encode()
    return text if len(encoded) <= TEXT_BYTES else encoded[:TEXT_BYTES].decode(errors="ignore")
