"""Declarations of tasks: their outputs in the run folder, and the keys whose text is taken as typed.

A task is a function that a YAML of the `task` group names. It makes its declarations with a decorator:

    @task(outputs=("negatives.jsonl", "report.json"), free_text=("query",))
    def mine(...): ...

The run folder, the rules and the command line read them; there is no central list of tasks.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from embfit.compose.targets import find_target

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class TaskDeclaration:
    """The declarations of a task. Outputs are names or patterns in the run folder (`training-*.json`).

    Args:
        outputs: the files that the task makes; they are removed if a run of another configuration replaces the run.
        costly: outputs that took hours and are not in the store; an unfinished run with such outputs is replaced by a
            run of another configuration only on request.
        paid: outputs that cost money, such as a model's answers; they are never removed.
        restarts: whether a finished run can be started again in the same folder, as a server's.
        free_text: keys whose values are taken as typed, including commas and quotes.
        variants: classes or functions, of which the first whose first parameter fits receives the task's groups. The
            other groups must fit its type hints.
        spreads: whether the workers of a cluster can share its work.
    """

    outputs: tuple[str, ...] = ()
    costly: tuple[str, ...] = ()
    paid: tuple[str, ...] = ()
    restarts: bool = False
    free_text: tuple[str, ...] = ()
    variants: tuple[Callable[..., Any], ...] = ()
    spreads: bool = False

    @property
    def trains(self) -> bool:
        """Whether the task trains a model and keeps a record of the training, unlike `task=quantize`."""
        return {"model", "training.json"} <= {*self.outputs}


def task(
    *,
    outputs: tuple[str, ...] = (),
    costly: tuple[str, ...] = (),
    paid: tuple[str, ...] = (),
    restarts: bool = False,
    free_text: tuple[str, ...] = (),
    variants: tuple[Callable[..., Any], ...] = (),
    spreads: bool = False,
) -> Callable[[Function], Function]:
    """Declare a task; the arguments are those of `TaskDeclaration`.

    `free_text` is a literal, since the command line reads it from the source, before anything is imported.
    """
    declared = TaskDeclaration(outputs, costly, paid, restarts, free_text, variants, spreads)

    def declare(function: Function) -> Function:
        vars(function)["declaration"] = declared
        return function

    return declare


def declaration(target: str) -> TaskDeclaration:
    """Return the declarations of the task that a `_target_` names; empty for a function without the decorator.

    Raises:
        MissingTargetError: the function does not exist.
    """
    found = getattr(find_target(target).call, "declaration", None)
    return found if isinstance(found, TaskDeclaration) else TaskDeclaration()


def task_names(folders: Iterable[Path]) -> set[str]:
    """Return the names of the tasks in folders of choices."""
    return {file.stem for folder in folders for file in (folder / "task").glob("*.yaml")}


def free_text_keys(folders: Iterable[Path]) -> set[str]:
    """Return the keys that tasks declare as free text, read from their sources without importing them.

    Args:
        folders: the folders of choices, whose `task/*.yaml` name the tasks.
    """
    files = [file for folder in folders for file in sorted((folder / "task").glob("*.yaml"))]
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    targets = [match[1] for text in texts if (match := re.search(r"^_target_:\s*([\w.]+)", text, re.MULTILINE))]
    return {key for target in dict.fromkeys(targets) for key in _free_text(target)}


def _free_text(target: str) -> Iterable[str]:
    """Return the free-text keys of one task; none if its source cannot be found or read."""
    module, _, name = target.rpartition(".")
    try:
        spec = importlib.util.find_spec(module)
        source = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
        body = ast.parse(source).body
    except (ImportError, ValueError, OSError, SyntaxError):
        return ()  # the preflight reports it
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            calls = [call for call in node.decorator_list if isinstance(call, ast.Call)]
            written = [word.value for call in calls for word in call.keywords if word.arg == "free_text"]
            return [str(key) for value in written for key in ast.literal_eval(value)]
    return ()
