"""Documentation strings of Python files, read from their syntax trees: no file is ever imported or run."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from typing import NamedTuple

_Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_BLOCKS = (ast.If, ast.Try, ast.With)  # definitions often stand in one: `if sys.platform == "win32":`

_SIGNATURE = re.compile(r"[\w.]+\s*\(.*\)(\s*->.*)?[.:]?")
_SENTENCE_END = re.compile(r"[.!?](?=\s+[^a-z\s])")
_ABBREVIATION = re.compile(r"(\W|^)(e\.g|i\.e|cf|vs|etc|[A-Za-z])\.$")
_PARAGRAPHS = re.compile(r"\n[ \t]*\n")
_NOT_PROSE = re.compile(r"\s*\.\. |.*\bdeprecated\b", re.IGNORECASE | re.DOTALL)  # a directive, a deprecation note


class Docstring(NamedTuple):
    """What the documentation of one module, class or function says.

    Args:
        module: the module's dotted name (`json.decoder`).
        name: the class or function within the module (`JSONDecoder.decode`); empty for the module itself.
        summary: the first sentence of the documentation, on one line.
        rest: everything after the first sentence, as written; may be empty.
    """

    module: str
    name: str
    summary: str
    rest: str


def read_docstrings(source: str | bytes, module: str) -> Iterator[Docstring]:
    """Yield the documentation strings of a file: first the module's, then those of its classes and functions in order.

    Functions within functions are left out: nobody can call them from outside, so nobody searches for them.

    Raises:
        SyntaxError: the source is not Python of the running version, or not in its declared encoding.
        ValueError: the source holds null bytes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an invalid escape in someone's string is not our user's concern
        tree = ast.parse(source)
    yield from _of(tree, module, "")


def _of(node: ast.Module | _Definition, module: str, name: str) -> Iterator[Docstring]:
    text = ast.get_docstring(node)
    if text:
        yield Docstring(module, name, *split_summary(text))
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        for child in _definitions(node):
            yield from _of(child, module, f"{name}.{child.name}" if name else child.name)


def _definitions(node: ast.AST) -> Iterator[_Definition]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _Definition):
            yield child
        elif isinstance(child, _BLOCKS):
            yield from _definitions(child)


def split_summary(text: str) -> tuple[str, str]:
    """Return the first sentence, on one line, and the rest.

    Signatures at the start (`get(key) -> value`, common in documentation of C functions) are skipped. A first paragraph
    without a full stop inside counts as one sentence.
    """
    text = text.strip()
    line, _, below = text.partition("\n")
    while _SIGNATURE.fullmatch(line.strip()):
        text = below.strip()
        line, _, below = text.partition("\n")
    opening, *paragraphs = _PARAGRAPHS.split(text, maxsplit=1)
    for end in _SENTENCE_END.finditer(opening):
        if not _ABBREVIATION.search(opening[: end.end()]):
            paragraphs.insert(0, opening[end.end() :].strip())
            opening = opening[: end.end()]
            break
    return " ".join(opening.split()), "\n\n".join(paragraphs).strip()


def prose(text: str) -> str:
    """Return the paragraphs that explain something, without examples (`>>>`), directives and deprecation notes."""
    paragraphs = (paragraph.split(">>>")[0] for paragraph in _PARAGRAPHS.split(text))
    return "\n\n".join(one.strip() for one in paragraphs if one.strip() and not _NOT_PROSE.match(one))
