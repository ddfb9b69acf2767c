"""Signatures read from source are those that `inspect` finds in the imported class."""

import importlib
import inspect
import subprocess
import sys

import pytest

from embfit.compose.source_signature import ImportedWhenCalled, read_class
from embfit.compose.targets import find_target, type_hints
from embfit.compose.values import complaint, wanted

CLASSES = [
    "pytorch_lightning.Trainer",
    "pytorch_lightning.loggers.CSVLogger",
    "pytorch_lightning.loggers.TensorBoardLogger",
    "pytorch_lightning.callbacks.EarlyStopping",
    "pytorch_lightning.callbacks.LearningRateMonitor",
    "pytorch_lightning.callbacks.ModelCheckpoint",
]


@pytest.mark.parametrize("name", CLASSES)
def test_the_source_says_what_the_class_takes(name):
    module, _, last = name.rpartition(".")
    found = getattr(importlib.import_module(module), last)
    read = read_class(name)
    assert read is not None
    assert read.module == found.__module__
    parameters = inspect.signature(found).parameters
    assert list(read.parameters) == list(parameters)
    for key, parameter in parameters.items():
        assert (read.parameters[key].kind, read.parameters[key].default) == (parameter.kind, parameter.default)
    hints = type_hints(found)
    for key, hint in read.hints.items():  # a union's order is that of its first use, which typing remembers
        assert sorted(wanted(hint).split(" or ")) == sorted(wanted(hints[key]).split(" or ")), key


def test_values_are_held_to_what_was_read():
    trainer = read_class("pytorch_lightning.Trainer")
    assert trainer is not None
    assert complaint(2, trainer.hints["num_nodes"]) is None
    assert complaint("two", trainer.hints["num_nodes"]) == 'expected a whole number, got "two"'
    assert complaint([0, 1], trainer.hints["devices"]) is None
    assert complaint("warn", trainer.hints["deterministic"]) is None
    assert complaint("no", trainer.hints["deterministic"]) is not None


@pytest.mark.parametrize(
    "name", ["pytorch_lightning.Trainr", "pytorch_lightning.nowhere.X", "os.path.join", "torch.nn"]
)
def test_what_is_no_such_class_is_not_read(name):
    assert read_class(name) is None


def test_a_stand_in_makes_what_it_stands_for(tmp_path):
    stand_in = ImportedWhenCalled("pytorch_lightning.loggers.CSVLogger", "pytorch_lightning.loggers.csv_logs")
    assert stand_in.__name__ == "CSVLogger"
    made = stand_in(str(tmp_path), name="x")
    assert type(made).__module__ == find_target("pytorch_lightning.loggers.CSVLogger").module


def test_a_configuration_is_checked_without_slow_imports():
    """In a process of its own, whose modules are those of a fresh start."""
    program = """
import sys
from embfit.compose.composition import check_composed, compose
from embfit.compose.loader import make_loader
loader = make_loader()
check_composed(loader, compose(loader, []), [])
print(*(name for name in SLOW if name in sys.modules))
"""
    slow = "pytorch_lightning", "torchmetrics", "transformers.modeling_utils", "datasets", "scipy.stats", "matplotlib"
    command = [sys.executable, "-c", program.replace("SLOW", repr(slow))]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "\n"
