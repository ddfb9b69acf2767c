import sys
from pathlib import Path

import pytest

from embfit.compose import search_path
from embfit.compose.loader import make_loader
from embfit.errors import ConfigError


def write(folder: Path, name: str) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("# When.\n# python -m embfit\na: 1\n")
    return file


def test_named_folders_then_packs_then_the_users_own(house, monkeypatch):
    write(house / "one", "model/first.yaml")
    write(house / "two", "model/second.yaml")
    write(house / "xdg" / "embfit", "trainer/mine.yaml")
    write(house / "xdg" / "embfit", "launcher/ours.yaml")
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", f"{house / 'one'}:{house / 'two'}")
    assert [source.provider for source in search_path.added_sources()] == [
        str(house / "one"),
        str(house / "two"),
        "acme-pack==1.2",
        "user",
    ]
    loader = make_loader()
    assert loader.choices("model") == ["first", "legal", "second", "small"]
    assert loader.choices("trainer") == ["auto", "mine"]
    assert loader.choices("launcher") == ["ours", "parallel", "slurm"]


def test_a_pack_is_found_without_running_its_code(house):
    [pack] = search_path.added_sources()
    assert (pack.provider, pack.package) == ("acme-pack==1.2", "acme")
    assert pack.folder.name == "conf"
    assert search_path.packs() == {"acme"}
    assert "acme" not in sys.modules


def test_a_file_that_shadows_another_is_an_error_that_names_both(house, monkeypatch):
    mine = write(house / "one", "model/small.yaml")
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(house / "one"))
    with pytest.raises(ConfigError) as error:
        make_loader()
    message = str(error.value)
    assert message.startswith(f"'model/small' is written twice: {mine} ({house / 'one'}) shadows ")
    assert message.endswith("house/conf/model/small.yaml (embfit); rename one")


def test_a_folder_that_is_a_link_is_looked_into(house, monkeypatch):
    """Hydra does, so a file in one would be chosen, or be shadowed, past every check."""
    mine = write(house / "elsewhere", "models/small.yaml")
    (house / "one").mkdir()
    (house / "one" / "model").symlink_to(mine.parent)
    (house / "one" / "loop").symlink_to(house / "one")
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(house / "one"))
    with pytest.raises(ConfigError, match=f"'model/small' is written twice: {house / 'one/model/small.yaml'}"):
        make_loader()
    mine.rename(mine.with_name("tiny.yml"))
    with pytest.raises(ConfigError, match=rf"{house / 'one/model/tiny.yml'} is not read; name it tiny\.yaml"):
        make_loader()
    mine.with_name("tiny.yml").rename(mine.with_name("tiny.yaml"))
    assert make_loader().choices("model") == ["legal", "small", "tiny"]
    assert list(search_path.added_sources()[0].choices()) == [Path("model/tiny.yaml")]
    (house / "xdg").mkdir()
    (house / "xdg" / "embfit").symlink_to(house / "one")
    monkeypatch.delenv("EMBFIT_CONFIG_PATH")
    with pytest.raises(ConfigError, match=r"model/tiny\.yaml is not read: a user's own folder holds"):
        make_loader()


def test_a_folder_that_is_named_twice_is_one(house, monkeypatch):
    write(house / "one", "model/first.yaml")
    write(house / "xdg" / "embfit", "trainer/mine.yaml")
    (house / "link").symlink_to(house / "one")
    pack = search_path.added_sources()[0]
    places = [house / "one", house / "one" / "..", house / "link", pack.folder, house / "xdg" / "embfit"]
    places[1] = places[1] / "one"
    places.append(search_path.house().folder)
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", ":".join(map(str, places)))
    assert [source.provider for source in search_path.added_sources()] == [
        str(house / "one"),
        "acme-pack==1.2",  # so that a run's record has its version
        str(house / "xdg" / "embfit"),
    ]
    assert make_loader().choices("model") == ["first", "legal", "small"]


def test_a_folder_that_is_not_there(house, monkeypatch):
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", "nowhere")
    with pytest.raises(ConfigError, match="EMBFIT_CONFIG_PATH names nowhere, which is not a folder"):
        make_loader()


def test_another_ending_is_not_passed_over_in_silence(house, monkeypatch):
    write(house / "one", "model/first.yml")
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(house / "one"))
    with pytest.raises(ConfigError, match=r"first\.yml is not read; name it first\.yaml"):
        make_loader()


def test_another_encoding(house, monkeypatch):
    file = write(house / "one", "model/first.yaml")
    file.write_bytes("a: über\n".encode("latin-1"))
    monkeypatch.setenv("EMBFIT_CONFIG_PATH", str(house / "one"))
    with pytest.raises(ConfigError, match=r"first\.yaml is not UTF-8 \(byte 3\); save it as UTF-8"):
        make_loader()


def test_the_users_own_folder_cannot_move_results(house):
    file = write(house / "xdg" / "embfit", "training/mine.yaml")
    with pytest.raises(
        ConfigError, match=f"{file} is not read: a user's own folder holds the groups cluster, launcher"
    ):
        make_loader()


def test_a_pack_without_its_folder(house, tmp_path, monkeypatch):
    info = tmp_path / "site" / "empty-2.dist-info"
    write(info, "METADATA").write_text("Metadata-Version: 2.1\nName: empty\nVersion: 2\n")
    write(info, "entry_points.txt").write_text("[embfit.configs]\nempty = empty_pack.conf\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with pytest.raises(
        ConfigError, match=r"config pack empty==2 names empty_pack\.conf, which is not a package folder"
    ):
        make_loader()
