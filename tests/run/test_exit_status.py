import errno
import os

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from embfit.errors import ConfigError, UserError, first_line
from embfit.run.exit_status import ExitStatus, exit_status


def raised(error: BaseException, during: BaseException | None = None) -> BaseException:
    """Raise and catch, so that the error knows its context."""
    try:
        if during is None:
            raise error
        try:
            raise during
        except BaseException:
            raise error  # noqa: B904
    except BaseException as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, ExitStatus("done", 0)),
        (SystemExit(0), ExitStatus("done", 0)),
        (KeyboardInterrupt(), ExitStatus("interrupted", 130, "interrupted")),
        (UserError("a.tsv:3: one column"), ExitStatus("failed", 1, "a.tsv:3: one column")),
        (ConfigError("k=0; raise it"), ExitStatus("failed", 2, "k=0; raise it")),
        (SystemExit(3), ExitStatus("failed", 3, "ended with 3")),
        (SystemExit("why"), ExitStatus("failed", 1, "ended with why")),
        (PermissionError(errno.EACCES, "Permission denied", "out"), ExitStatus("failed", 1, "Permission denied: out")),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.bin"),
            ExitStatus("failed", 1, "the disk is full: model.bin; free some space there"),
        ),
        (
            MemoryError(),
            ExitStatus("failed", 1, "out of memory; choose a smaller model or batch, or a machine with more"),
        ),
        (ValueError("one\ntwo"), ExitStatus("failed", 1, "unexpected ValueError: one", expected=False)),
        (AssertionError(), ExitStatus("failed", 1, "unexpected AssertionError", expected=False)),
    ],
)
def test_what_an_end_means(error, expected):
    assert exit_status(error) == expected


def test_a_gpu_without_memory_names_what_to_lower():
    found = exit_status(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert (found.state, found.exit_code, found.expected) == ("failed", 1, True)
    assert (
        "in training lower training.token_budget (16384 on a GPU) or set training.gradient_checkpointing=true"
        in found.message
    )


def test_pytorch_without_memory_on_a_cpu_is_out_of_memory():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert exit_status(caught.value).message.startswith("out of memory; choose a smaller model")


def test_an_error_is_told_by_its_first_line_or_else_its_name():
    assert first_line(ValueError("\n why \nand where")) == "why "
    assert first_line(ValueError(" ")) == "ValueError"
    assert exit_status(ValueError(" ")).message == "unexpected ValueError"


def test_a_full_disk_is_known_by_the_words_of_libraries():
    said = "the disk is full; free some space"
    with pytest.raises(OSError, match="requested and") as of_numpy:
        np.arange(100_000).tofile("/dev/full")
    with pytest.raises(SafetensorError, match="os error 28") as of_safetensors:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    of_pytorch = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")
    for error in (of_numpy.value, of_safetensors.value, of_pytorch):
        assert exit_status(error) == ExitStatus("failed", 1, said)
    assert exit_status(UserError("a.tsv:3: 3 requested and 2 written")).message == "a.tsv:3: 3 requested and 2 written"


def test_an_exit_that_a_library_makes_of_ctrl_c_is_an_interruption():
    assert exit_status(raised(SystemExit(1), during=KeyboardInterrupt())).exit_code == 130
    assert exit_status(raised(SystemExit(1), during=ValueError())).exit_code == 1
    assert exit_status(raised(ValueError("x"), during=KeyboardInterrupt())).exit_code == 1
