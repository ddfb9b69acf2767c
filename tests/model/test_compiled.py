from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from embfit.errors import UserError
from embfit.model import Encoder
from tests.conftest import TEXTS

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch compiles for a CPU with g++")


def gradients(encoder: Encoder) -> dict[str, torch.Tensor]:
    tokens = encoder.tokenize(TEXTS, "document")
    for rows in ([0, 1, 2], [3, 4, 5, 6, 7]):  # two sizes and lengths
        torch.manual_seed(1)
        encoder(*tokens.take(rows).padded(torch.arange(len(rows)).numpy(), encoder.pad_id))[:, 0].sum().backward()
    return {name: weight.grad for name, weight in encoder.named_parameters() if weight.grad is not None}


@needs_compiler
@pytest.mark.slow
@pytest.mark.timeout(900)  # compilers take their time
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_compiled_gradients_equal_plain_ones(dropout: float, make_encoder: Callable[..., Encoder]) -> None:
    torch.compiler.reset()
    compiled = make_encoder(dropout=dropout, compile=True).train(dropout > 0)
    expected = gradients(make_encoder(dropout=dropout).train(dropout > 0))
    found = gradients(compiled)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-4)
    tokens = compiled.tokenize(TEXTS[:3], "document").padded(torch.arange(3).numpy(), compiled.pad_id)
    torch.manual_seed(2)
    with torch.no_grad():
        without = compiled(*tokens)
    torch.manual_seed(2)
    torch.testing.assert_close(compiled(*tokens).detach(), without, atol=1e-6, rtol=1e-5)


def test_what_cannot_be_compiled_names_the_setting(
    make_encoder: Callable[..., Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.exc import Unsupported

    def refuse(*arguments: object) -> torch.Tensor:
        raise Unsupported("no compiler found\nand more")

    monkeypatch.setattr("embfit.model.compiled._compiled", lambda: refuse)
    encoder = make_encoder(compile=True)
    with pytest.raises(UserError, match=r"cannot compile BertModel here \(no compiler found\); set model\.compile=fal"):
        gradients(encoder)
    assert encoder.encode(TEXTS, "query").shape == (12, 32)  # what is stored is never compiled


def test_encoding_is_not_compiled(make_encoder: Callable[..., Encoder]) -> None:
    plain, compiled = make_encoder(), make_encoder()
    compiled.settings = replace(compiled.settings, compile=True)
    assert (plain.encode(TEXTS, "query") == compiled.encode(TEXTS, "query")).all()
    assert plain.fingerprint("document") == compiled.fingerprint("document")
