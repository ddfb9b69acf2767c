"""MLflow's registry says what the bundle's folder says, whatever happened in between."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from embfit.bundle import BundleSettings, BundleVersions, Gates
from embfit.bundle.mlflow_registry import register
from embfit.bundle.promotion import Pruning, promote, prune, rollback
from embfit.errors import ConfigError, UserError
from tests.bundle.conftest import copy_version


def test_without_mlflow_it_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embfit.bundle.mlflow_registry.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"bundle\.registry needs MLflow; install it with: pip install 'embfit\[mlf"):
        BundleSettings(registry="sqlite:///registry.db")


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match=r"bundle\.registry contains a password") as refused:
        BundleSettings(registry="postgresql://me:s3cret/word@db:5432/mlflow")
    assert "s3cret" not in str(refused.value)


def test_a_registry_that_is_not_there_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(versions: BundleVersions, uri: str) -> None:
        raise UserError(f"bundle.registry={uri} cannot be updated for {versions.name}: no")

    monkeypatch.setattr("embfit.bundle.settings.check_installed", lambda: None)
    monkeypatch.setattr("embfit.bundle.settings.register", refuse)
    BundleSettings(name="docs").register()
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING):
        BundleSettings(name="docs", registry="http://localhost:1").register()
    assert "bundle.registry=http://localhost:1 cannot be updated for docs: no" in caplog.text


class Registry:
    """An MLflow client whose server takes its time to list versions."""

    known: ClassVar[list[SimpleNamespace]] = []

    def __init__(self, tracking_uri: str, registry_uri: str) -> None:
        self.uri = registry_uri

    def search_registered_models(self, asked: str) -> list[str]:
        return ["docs"]

    def search_model_versions(self, asked: str) -> list[SimpleNamespace]:
        found = list(self.known)
        time.sleep(0.05)
        return found

    def create_model_version(self, name: str, source: str, tags: dict[str, str]) -> SimpleNamespace:
        self.known.append(SimpleNamespace(version=len(self.known) + 1, tags=tags))
        return self.known[-1]

    def get_registered_model(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(aliases={})

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        pass


def test_two_at_once_register_a_version_once(versions: BundleVersions, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow: Any = pytest.importorskip("mlflow", reason="pip install 'embfit[mlflow]'")
    monkeypatch.setattr(mlflow, "MlflowClient", Registry)
    monkeypatch.setattr(Registry, "known", [])
    copy_version(versions, 2)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: register(versions, "http://localhost:1"), range(4)))
    assert [found.tags["embfit.version"] for found in Registry.known] == ["1", "2"]


def test_a_damaged_version_does_not_keep_the_others_from_the_registry(
    versions: BundleVersions, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mlflow: Any = pytest.importorskip("mlflow", reason="pip install 'embfit[mlflow]'")
    monkeypatch.setattr(mlflow, "MlflowClient", Registry)
    monkeypatch.setattr(Registry, "known", [])
    for number in (2, 3):
        copy_version(versions, number)
    manifest = versions.path(2) / "manifest.json"
    manifest.chmod(0o644)
    manifest.write_text("{")
    with caplog.at_level(logging.WARNING):
        register(versions, "http://localhost:1")
    assert [found.tags["embfit.version"] for found in Registry.known] == ["1", "3"]
    assert "version 2 of docs is not added to the registry: " in caplog.text


def aliases(uri: str) -> dict[str, str]:
    """Return the bundle's number behind each alias."""
    mlflow: Any = pytest.importorskip("mlflow", reason="pip install 'embfit[mlflow]'")
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    found = client.get_registered_model("docs").aliases
    return {alias: client.get_model_version("docs", number).tags["embfit.version"] for alias, number in found.items()}


@pytest.mark.slow  # MLflow takes ten seconds to make its tables
def test_aliases_follow_the_pointers(versions: BundleVersions, tmp_path: Path) -> None:
    mlflow: Any = pytest.importorskip("mlflow", reason="pip install 'embfit[mlflow]'")
    uri = f"sqlite:///{tmp_path}/registry/mlflow.db"
    register(versions, uri)
    assert aliases(uri) == {"champion": "1"}
    copy_version(versions, 2)
    copy_version(versions, 3)
    versions.point({"challenger": 3})
    register(versions, uri)
    register(versions, uri)  # again: nothing is added twice
    assert aliases(uri) == {"champion": "1", "challenger": "3"}
    assert promote(versions, 3, Gates()).promoted
    register(versions, uri)
    assert aliases(uri) == {"champion": "3", "previous": "1"}
    rollback(versions)
    assert prune(versions, keep=1) == Pruning([2], {})
    register(versions, uri)
    assert aliases(uri) == {"champion": "1", "previous": "3"}
    found = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri).search_model_versions("name = 'docs'")
    assert sorted(one.tags["embfit.version"] for one in found) == ["1", "2", "3"]
    assert {one.tags["embfit.ndcg_at_10"] for one in found} == {f"{versions.manifest().quality.metrics['ndcg@10']:.4f}"}
    assert versions.path(1).as_uri() in {one.source for one in found}


def test_a_registry_that_cannot_be_opened(versions: BundleVersions, tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="pip install 'embfit[mlflow]'")
    (tmp_path / "file").write_text("nothing")
    with pytest.raises(UserError, match=r"bundle\.registry=sqlite:///.* cannot be updated for docs"):
        register(versions, f"sqlite:///{tmp_path}/file/mlflow.db")
