import json
import sys

import pytest

from embfit.data import PythonDocs
from embfit.data.python_files import folder_files, package_files, stdlib_files
from embfit.errors import ConfigError, UserError
from embfit.store import Store

DOCUMENTED = '''
def {name}():
    """{summary}

    {rest}
    """
'''


def write_module(path, *functions):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(DOCUMENTED.format(name=f"f{n}", summary=s, rest=r) for n, (s, r) in enumerate(functions)))


def distinct(n):
    words = " ".join(f"word{n}x{chr(97 + at)}" for at in range(12))
    return f"Summary number{n} about topic{n}.", f"Explains {words}."


@pytest.fixture
def code(tmp_path):
    """Twenty modules of two functions, and files that are not to be read."""
    folder = tmp_path / "mycode"
    for n in range(20):
        write_module(folder / "package" / f"module{n}.py", distinct(2 * n), distinct(2 * n + 1))
    write_module(folder / "package" / "test_module.py", distinct(100))
    write_module(folder / "tests" / "module.py", distinct(101))
    write_module(folder / ".venv" / "module.py", distinct(102))
    write_module(folder / "package" / "__init__.py", distinct(103))
    (folder / "package" / "broken.py").write_text("def f(:")
    return folder


def test_files_of_a_folder(code):
    modules = [file.module for file in folder_files(code)]
    assert modules == ["package", "package.broken", *sorted(f"package.module{n}" for n in range(20))]
    assert next(folder_files(code / "package")).module == "package"
    assert next(folder_files(code / "package", prefix="top")).module == "top"


def test_ones_own_code_is_split_by_module(code, store):
    collection = PythonDocs(path=str(code), dev_share=0.2, test_share=0.3).load(store)
    assert collection.name == "mycode"
    assert [len(judged) for judged in collection.qrels.values()] == [21, 8, 12]
    modules = [
        {document.partition(":")[0] for documents in judged.values() for document in documents}
        for judged in collection.qrels.values()
    ]
    assert sum(map(len, modules)) == len(set.union(*modules)) == 21
    assert (collection.facts["files"], collection.facts["files_unread"]) == (22, 1)
    json.dumps(collection.facts)


def test_nothing_is_imported_and_the_store_is_used(code, tmp_path):
    before = set(sys.modules)
    first, second, third = (Store(tmp_path / "store") for _ in range(3))
    PythonDocs(path=str(code)).load(first)
    PythonDocs(path=str(code)).load(second)
    write_module(code / "package" / "module3.py", distinct(200))
    PythonDocs(path=str(code)).load(third)
    assert (first.reused, second.built, third.built) == ([], [], ["collection", "splits"])
    assert not {name for name in set(sys.modules) - before if "module" in name}


def test_files_of_packages():
    modules = [file.module for file in package_files("json")]
    assert modules == ["json", "json.decoder", "json.encoder", "json.scanner", "json.tool"]
    assert [file.module for file in package_files("email.mime")][:2] == ["email.mime", "email.mime.application"]
    assert [file.module for file in package_files("this")] == ["this"]
    assert "this" not in sys.modules  # it prints a poem when imported


@pytest.mark.parametrize(
    ("packages", "message"),
    [
        (["no_such_package"], 'the package "no_such_package" is not installed'),
        (["sys"], '"sys" is not a package with Python files'),
        (["json.nothing"], 'the package "json" has no sub-package "nothing"'),
        ([""], 'the package "" is not installed'),
        ([".json"], 'the package ".json" is not installed'),
    ],
)
def test_packages_that_are_not_there(packages, message, store):
    with pytest.raises(UserError) as error:
        PythonDocs(packages=packages).load(store)
    assert str(error.value).startswith(message)


def test_nothing_to_read(tmp_path, store):
    with pytest.raises(UserError, match=r"nowhere is not a folder"):
        PythonDocs(path=str(tmp_path / "nowhere")).load(store)
    with pytest.raises(UserError, match=r"no Python files in "):
        PythonDocs(path=str(tmp_path)).load(store)
    with pytest.raises(ConfigError, match=r"data\.packages=\[NAME"):
        PythonDocs(packages=[]).load(store)
    (tmp_path / "a.py").write_text('"""Only a summary."""')
    with pytest.raises(UserError, match=r"none of the 1 documentation strings in "):
        PythonDocs(path=str(tmp_path)).load(store)


def test_the_standard_library_leaves_out_what_not_every_machine_has():
    modules = {file.module for file in stdlib_files()}
    assert {"json.decoder", "os", "asyncio.streams"} <= modules
    assert not {
        name for name in modules if name.split(".")[0] in ("test", "idlelib", "tkinter", "site-packages", "numpy")
    }


@pytest.mark.slow
def test_the_embedded_default(tmp_path):
    collection = PythonDocs().load(Store(tmp_path))
    facts = collection.facts
    assert 2000 < facts["documents"] < 3000
    assert facts["test_queries"] >= 400
    assert facts["held_out"] == "test, dev"
    lengths = sorted(len(text.split()) for text in collection.document_texts())
    assert 25 < lengths[len(lengths) // 2] < 50
