"""Collections and stage results in object storage, by fsspec's file system in memory and by an S3 server."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from embfit.compose.composition import resolve_all
from embfit.compose.loader import make_loader
from embfit.compose.preflight import check
from embfit.data import Beir, Documents, Pairs
from embfit.errors import ConfigError, UserError
from embfit.object_storage import RemoteFolder, _arrow_system, is_remote
from embfit.store import Store


@pytest.fixture
def bucket() -> str:
    """An empty folder of fsspec's file system in memory."""
    return f"memory://bucket-{uuid.uuid4().hex}"


def put(address: str, files: dict[str, str]) -> None:
    """Write files as somebody else does."""
    for name, text in files.items():
        RemoteFolder(address).write_text(name, text)


COLLECTION = {
    "corpus.jsonl": '{"_id": "d1", "text": "the heart"}\n{"_id": "d2", "text": "the liver"}\n',
    "queries.jsonl": '{"_id": "q1", "text": "heart"}\n',
    "qrels/test.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t1\n",
}


def test_addresses_are_told_from_paths() -> None:
    assert [is_remote(path) for path in ("s3://b/x", "gs://b", "MEMORY://b", "C:/x", "a:b", "/s3://", "x//y")] == [
        *[True] * 3,
        *[False] * 4,
    ]


def test_a_collection_is_copied_once_and_again_when_it_has_changed(bucket: str, tmp_path: Path) -> None:
    put(f"{bucket}/small", COLLECTION)
    collection = Beir(f"{bucket}/small").load(Store(tmp_path))
    assert (collection.name, collection.document_ids) == ("small", ["d1", "d2"])
    assert collection.qrels == {"test": {"q1": {"d1": 1}}}
    again = Store(tmp_path)
    Beir(f"{bucket}/small/").load(again)
    assert again.built == ["downloads"]  # another spelling of the address; the tables are those of the same content
    third = Store(tmp_path)
    Beir(f"{bucket}/small").load(third)
    assert third.built == []
    put(f"{bucket}/small", {"corpus.jsonl": COLLECTION["corpus.jsonl"] + '{"_id": "d3", "text": "the lung"}\n'})
    assert Beir(f"{bucket}/small").load(Store(tmp_path)).document_ids == ["d1", "d2", "d3"]


def test_single_files_and_folders_of_documents_are_read_too(bucket: str, tmp_path: Path) -> None:
    put(
        bucket,
        {"pairs.jsonl": '{"query": "heart", "positive": "the heart pumps"}\n', "docs/a/b.md": "# Heart\n\nIt pumps.\n"},
    )
    pairs = Pairs(f"{bucket}/pairs.jsonl").load(Store(tmp_path))
    assert list(pairs.document_texts()) == ["the heart pumps"]
    documents = Documents(f"{bucket}/docs").load(Store(tmp_path))
    assert len(documents.corpus) == 1
    assert "It pumps." in next(iter(documents.document_texts()))


def test_what_is_not_there_is_named(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^{bucket}/none: there is no such file or folder$"):
        Beir(f"{bucket}/none").load(Store(tmp_path))
    with pytest.raises(UserError, match=r"^nowhere://x: .*nowhere"):
        Beir("nowhere://x").load(Store(tmp_path))


@pytest.mark.parametrize("name", ["../escaped", "a/../../escaped"])
def test_a_file_that_leads_out_of_its_folder_is_not_copied(name: str, bucket: str, tmp_path: Path) -> None:
    """Names come from whoever may write to the bucket, and S3 takes two dots in a key."""
    put(f"{bucket}/docs", {"a.md": "x"})
    system, root = fsspec.core.url_to_fs(f"{bucket}/docs")
    system.store[f"{root}/{name}"] = system.store[f"{root}/a.md"]
    with pytest.raises(UserError, match=rf"docs names {name}, which is outside that folder; nothing is copied$"):
        Documents(f"{bucket}/docs").load(Store(tmp_path / "store"))
    assert not list(tmp_path.rglob("escaped"))


def test_an_address_holds_no_key_and_no_options() -> None:
    for address, told in (
        (
            "s3://AKIA1:se/cr@et@team/x",
            r"^s3://…@team/x: the address holds a key, which logs would show; .*AWS_PROFILE",
        ),
        ("s3://team/x?region=eu-1", r"^s3://team/x\?…: an address takes no options; set AWS_REGION"),
    ):
        with pytest.raises(ConfigError, match=told):
            RemoteFolder(address)
    for address in ("abfs://box@team.dfs.core.windows.net/x", "http://host:8080/a@b/x", "s3://team/a:b@c/x"):
        assert RemoteFolder(address).name == "x"


def test_keys_are_refused_before_a_run_writes_them_down() -> None:
    loader = make_loader()
    for overrides, told in (
        (["data=beir", "data.path='s3://A:secret@team/x'"], r"^data\.path: s3://…@team/x: the address holds a key"),
        (["store.shared='s3://A:secret@team/x'"], r"^store\.shared: s3://…@team/x: the address holds a key"),
        (["store.shared=/mnt/store"], r"^store\.shared: /mnt/store is not an address in object storage, .* one store"),
    ):
        values, origins = resolve_all(loader, overrides)
        with pytest.raises(ConfigError, match=told) as refused:
            check(values, origins, loader.groups())
        assert "secret" not in str(refused.value)


def test_a_change_that_would_not_be_noticed_is_refused(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(f"{bucket}/small", COLLECTION)
    monkeypatch.setattr("embfit.object_storage.VERSIONS", ())
    with pytest.raises(UserError, match=r"neither a version nor a time of corpus\.jsonl, so a changed file would"):
        Beir(f"{bucket}/small").load(Store(tmp_path))


def test_a_result_that_one_machine_has_made_is_found_by_another(bucket: str, tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "inner").mkdir()
        (folder / "inner" / "number").write_text("1")

    first = Store(tmp_path / "first", shared=f"{bucket}/store")
    made = first.entry("numbers", {"n": 1}, build, version=1)
    second = Store(tmp_path / "second", shared=f"{bucket}/store")
    found = second.entry("numbers", {"n": 1}, pytest.fail, version=1)
    assert (first.built, first.reused) == (["numbers"], [])
    assert (second.built, second.reused) == ([], ["numbers"])
    assert (found / "inner" / "number").read_text() == "1"
    assert (found / "key.json").read_text() == (made / "key.json").read_text()
    assert sorted(path.name for path in found.parent.iterdir() if path.suffix != ".lock") == [found.name]


def test_a_result_that_is_half_shared_is_made_again(bucket: str, tmp_path: Path) -> None:
    first = Store(tmp_path / "first", shared=f"{bucket}/store")
    made = first.entry("numbers", {"n": 1}, lambda folder: (folder / "number").write_text("1"), version=1)
    system, root = fsspec.core.url_to_fs(f"{bucket}/store/numbers/{made.name}")
    system.rm(f"{root}/key.json")
    second = Store(tmp_path / "second", shared=f"{bucket}/store")
    second.entry("numbers", {"n": 1}, lambda folder: (folder / "number").write_text("1"), version=1)
    assert second.built == ["numbers"]
    assert system.exists(f"{root}/key.json")


def test_a_result_that_is_shared_by_now_is_not_replaced(bucket: str, tmp_path: Path) -> None:
    """Two machines that build one entry at the same time may differ in last bits, which must not be mixed."""
    first, second = (Store(tmp_path / name, shared=f"{bucket}/store") for name in ("first", "second"))

    def build(folder: Path) -> None:
        first.entry("numbers", {"n": 1}, lambda other: (other / "number").write_text("1"), version=1)
        (folder / "number").write_text("1.0")

    made = second.entry("numbers", {"n": 1}, build, version=1)
    assert (made / "number").read_text() == "1.0"
    assert RemoteFolder(f"{bucket}/store/numbers/{made.name}").read_text("number") == "1"


def test_what_cannot_be_shared_stays_here(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise UserError("s3://x: access is denied")

    monkeypatch.setattr(RemoteFolder, "upload", refuse)
    store = Store(tmp_path, shared=bucket)
    assert store.entry("numbers", {"n": 1}, lambda folder: None, version=1).is_dir()
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "numbers are not shared: s3://x: access is denied"
    ]


def test_folders_of_a_run_are_on_this_machine() -> None:
    loader = make_loader()
    for override, told in (
        ("store.dir=s3://b/store", "s3://b/store is in object storage; .* store.shared keeps a copy there"),
        ("run.dir=s3://b/run", "s3://b/run is in object storage; name a folder of this machine"),
        ("bundle.dir=s3://b/bundles", "embfit bundle push keeps a copy there"),
    ):
        values, origins = resolve_all(loader, [override])
        with pytest.raises(ConfigError, match=told):
            check(values, origins, loader.groups())


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of an S3 server on this machine (moto)."""
    program = os.environ.get("MOTO_SERVER") or shutil.which("moto_server")
    if program is None:
        pytest.skip("no S3 server: pip install 'moto[server]', or MOTO_SERVER=PROGRAM")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    server = subprocess.Popen([program, "-H", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(urllib.request.Request(f"{address}/bucket", method="PUT"), timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        for name, value in ACCESS.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        yield "s3://bucket"
    finally:
        server.terminate()
        server.wait()
        _arrow_system.cache_clear()


ACCESS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1"}


@pytest.mark.slow
def test_an_s3_server_keeps_collections_and_results(s3: str, tmp_path: Path) -> None:
    put(f"{s3}/small", COLLECTION)
    first = Store(tmp_path / "first", shared=f"{s3}/store")
    collection = Beir(f"{s3}/small").load(first)
    assert collection.document_ids == ["d1", "d2"]
    second = Store(tmp_path / "second", shared=f"{s3}/store")
    assert Beir(f"{s3}/small").load(second).corpus_digest == collection.corpus_digest
    assert (first.built, second.built) == (["downloads", "collection", "splits"], ["downloads"])
    assert second.reused == ["collection", "splits"]
    time.sleep(1.1)  # a change is known by size and second
    put(f"{s3}/small", {"queries.jsonl": COLLECTION["queries.jsonl"].replace("heart", "liver")})
    assert list(Beir(f"{s3}/small").load(second).query_texts()) == ["liver"]
    with pytest.raises(UserError, match=r"^s3://bucket/none: there is no such file or folder$"):
        Beir(f"{s3}/none").load(second)
    with pytest.raises(UserError, match=r"^s3://elsewhere/x: "):
        Beir("s3://elsewhere/x").load(second)


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (*ACCESS.items(), ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"), ("AWS_MAX_ATTEMPTS", "1")):
        monkeypatch.setenv(name, value)
    _arrow_system.cache_clear()
    with pytest.raises(UserError, match=r"^s3://silent/x: .*(onnect|NETWORK)"):
        Beir("s3://silent/x").load(Store(tmp_path))
    _arrow_system.cache_clear()
