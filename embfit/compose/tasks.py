"""What a task says of itself beside its function: what it leaves in the run folder, and which text it takes as typed.

A task is a function that a YAML of the `task` group names. It declares the rest with a decorator:

    @task(outputs=("negatives.jsonl", "report.json"), free_text=("query",))
    def mine(...): ...

The run folder, the rules of the configuration and the command line read this; no list of tasks stands anywhere.
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
    """What a task says of itself. Outputs are names or patterns in the run folder (`training-*.json`).

    Args:
        outputs: what the task makes; it is removed where a run of another configuration takes the folder's place.
        costly: outputs that hours went into and that no store keeps; an unfinished run that has some gives its place
            to a run of another configuration only where that is asked for.
        paid: outputs that were paid for, such as a model's answers; they are never removed.
        restarts: whether a second start in the same folder is a new run even if the first one is finished, as a
            server's is.
        free_text: keys whose values are taken as they are typed, commas and quotes included.
        variants: classes, or functions, of which one takes the groups that the task is given: the first whose first
            parameter fits. The other groups must fit that one's type hints.
        spreads: whether workers of a cluster may share its work.
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
        """Whether the task leaves a model that it trained, which it has a record of; `task=quantize` trains none."""
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
    """Return what the task behind a `_target_` declares; a function without the decorator declares nothing.

    Raises:
        MissingTargetError: there is no such function.
    """
    found = getattr(find_target(target).call, "declaration", None)
    return found if isinstance(found, TaskDeclaration) else TaskDeclaration()


def task_names(folders: Iterable[Path]) -> set[str]:
    """Return the names of the tasks that folders of choices have."""
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
    """Return the free text that one task declares; nothing where its source cannot be found or read."""
    module, _, name = target.rpartition(".")
    try:
        spec = importlib.util.find_spec(module)
        source = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
        body = ast.parse(source).body
    except (ImportError, ValueError, OSError, SyntaxError):
        return ()  # the preflight says what is wrong with it
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            calls = [call for call in node.decorator_list if isinstance(call, ast.Call)]
            written = [word.value for call in calls for word in call.keywords if word.arg == "free_text"]
            return [str(key) for value in written for key in ast.literal_eval(value)]
    return ()
