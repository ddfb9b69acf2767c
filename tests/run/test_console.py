import io
import logging
import sys
import warnings

import pytest

from embfit.run.console import Console, accept_any_character, listen, show_error


@pytest.fixture
def console():
    handler = Console()
    root = logging.getLogger()
    level, before = root.level, list(root.handlers)
    root.handlers = [handler]  # alone: a command that ran in this process before may be listening too
    root.setLevel(logging.INFO)
    yield handler
    root.handlers = before
    root.setLevel(level)


def test_lines_for_the_user_are_on_stderr(console, capsys):
    logging.getLogger("embfit.store").info("reusing %s", "embeddings")
    logging.getLogger("embfit.data").warning("3 texts are long")
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("some.library").error("broken")
    logging.getLogger("py.warnings").warning("deprecated")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["reusing embeddings", "warning: 3 texts are long", "error: broken"]


def test_listening_twice_shows_each_line_once(capsys):
    root = logging.getLogger()
    level, before = root.level, list(root.handlers)
    show = warnings.showwarning
    try:
        listen()
        listen()
        logging.getLogger("embfit").info("once")
        assert capsys.readouterr().err == "once\n"
    finally:
        logging.captureWarnings(False)
        root.setLevel(level)
        for handler in set(root.handlers) - set(before):
            root.removeHandler(handler)
    assert warnings.showwarning is show


def test_an_error_with_its_traceback_only_on_request(capsys, monkeypatch):
    error = ValueError("inner")
    monkeypatch.delenv("EMBFIT_FULL_ERROR", raising=False)
    show_error("outer", error)
    assert capsys.readouterr().err == "embfit: error: outer\n"
    monkeypatch.setenv("EMBFIT_FULL_ERROR", "1")
    show_error("outer", error)
    assert capsys.readouterr().err == "ValueError: inner\nembfit: error: outer\n"


@pytest.mark.parametrize(("encoding", "written"), [("latin-1", b"caf\xe9 ?\n"), ("ascii", b"caf? ?\n")])
def test_a_character_that_stdout_cannot_encode_ends_no_work(monkeypatch, encoding, written):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    with pytest.raises(UnicodeEncodeError):
        print("café …")
    accept_any_character()
    print("café …", flush=True)
    assert raw.getvalue() == written
