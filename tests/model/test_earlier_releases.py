"""A saved folder means the same to earlier releases of transformers and sentence-transformers, which many servers run.

The releases are installed into a folder that stands before this environment's own packages, so that they share its
PyTorch.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from embfit.model import BiEncoder, CrossEncoder, Encoder, Pretrained, save_cross_encoder, save_encoder
from embfit.model.projection import Projection
from tests.conftest import TEXTS
from tests.model.architectures import MAKERS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RELEASES = [
    "transformers==4.57.6",
    "sentence-transformers==3.4.1",
    "tokenizers==0.22.1",
    "huggingface-hub==0.36.2",
    "datasets==3.6.0",
]
FULL = {"e5-mistral-7b": ["model.dtype=float32"]}  # else both round in their own order
CHOICES = sorted(MAKERS.keys() - {"nomic-embed"})  # transformers 4 has no NomicBERT of its own

ENCODE = """
import sys
import numpy as np
import transformers, sentence_transformers
assert (transformers.__version__, sentence_transformers.__version__) == ("4.57.6", "3.4.1")
model = sentence_transformers.SentenceTransformer(sys.argv[1], device="cpu", model_kwargs={"torch_dtype": "float32"})
np.save(sys.argv[2], model.encode(sys.argv[4:], prompt_name=sys.argv[3] or None, normalize_embeddings=True))
"""

SCORE = """
import sys
import numpy as np
import sentence_transformers, torch
model = sentence_transformers.CrossEncoder(sys.argv[1], device="cpu", default_activation_function=torch.nn.Identity())
np.save(sys.argv[2], model.predict([(sys.argv[3], text) for text in sys.argv[4:]]))
"""


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., np.ndarray]:
    """Run a program with the earlier releases, and return the array that it saves."""
    folder = tmp_path_factory.mktemp("releases")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *RELEASES]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"the earlier releases cannot be installed here: {done.stderr.strip().splitlines()[-1]}")

    def run(program: str, model: Path, *arguments: str) -> np.ndarray:
        out = model.parent / "array.npy"
        ran = subprocess.run(
            [sys.executable, "-c", program, str(model), str(out), *arguments],
            env=os.environ | {"PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        array: np.ndarray = np.load(out)
        return array

    return run


@pytest.mark.parametrize("choice", CHOICES)
def test_an_encoder_of_every_architecture(chosen: Callable[..., Pretrained], earlier, tmp_path: Path, choice: str):
    encoder = chosen(choice, *FULL.get(choice, ())).load("cpu")
    save_encoder(encoder, tmp_path / "saved")
    np.testing.assert_allclose(
        earlier(ENCODE, tmp_path / "saved", "query", *TEXTS), encoder.encode(TEXTS, "query"), atol=1e-5
    )


def test_an_encoder_with_a_dense_layer(tiny_encoder: Encoder, earlier, tmp_path: Path):
    torch.manual_seed(0)
    layer = Projection({"in_features": 32, "out_features": 8, "activation_function": "torch.nn.Tanh"})
    encoder = BiEncoder(tiny_encoder.backbone, tiny_encoder.tokenizer, tiny_encoder.settings, [layer])
    save_encoder(encoder, tmp_path / "saved")
    np.testing.assert_allclose(
        earlier(ENCODE, tmp_path / "saved", "", *TEXTS), encoder.encode(TEXTS, "document"), atol=1e-5
    )


def test_a_cross_encoder(tiny_ranker: CrossEncoder, earlier, tmp_path: Path):
    save_cross_encoder(tiny_ranker, tmp_path / "saved")
    theirs = earlier(SCORE, tmp_path / "saved", TEXTS[0], *TEXTS[1:])
    ours = tiny_ranker.score([(TEXTS[0], text) for text in TEXTS[1:]])
    np.testing.assert_allclose(theirs, ours, atol=1e-5)
