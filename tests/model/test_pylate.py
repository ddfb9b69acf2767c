"""Token vectors equal to PyLate's own encoding of a saved folder.

PyLate pins other releases of transformers, so it runs in an environment of its own, whose Python EMBFIT_PYLATE names:

    python -m venv PYLATE
    PYLATE/bin/pip install torch==2.13.0 transformers==5.3.0 sentence-transformers==5.3.0 ujson scipy pandas datasets
    PYLATE/bin/pip install --no-deps pylate==1.6.0
    EMBFIT_PYLATE=PYLATE/bin/python scripts/test --slow tests/model/test_pylate.py
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from embfit.model import save_encoder
from tests.conftest import new_encoder, new_tokenizer
from tests.model.test_late_interaction import CONFIGURATIONS, HARD, made

ENCODE = """
import json, sys
import numpy as np
from pylate import models

for folder, texts in json.load(open(sys.argv[1])):
    model = models.ColBERT(folder, device="cpu")
    for kind in ("query", "document"):
        found = model.encode(texts, is_query=kind == "query", show_progress_bar=False, batch_size=1)
        np.savez(f"{folder}/{kind}.npz", *[np.asarray(one, np.float32) for one in found])
"""


@pytest.mark.slow
def test_vectors_are_those_of_pylate(tmp_path: Path) -> None:
    python = os.environ.get("EMBFIT_PYLATE")
    if python is None:
        pytest.skip("EMBFIT_PYLATE names no Python with PyLate (see the head of this file)")
    save_encoder(new_encoder(new_tokenizer()), tmp_path / "plain")
    encoders = {name: made(tmp_path / "plain", **settings) for name, settings in CONFIGURATIONS.items()}
    asked = []
    for name, encoder in encoders.items():
        folder = tmp_path / name.replace(" ", "-").replace(",", "")
        save_encoder(encoder, folder)
        asked.append((str(folder), HARD))
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["HF_HUB_OFFLINE"] = "1"
    subprocess.run([python, "-c", ENCODE, str(tmp_path / "asked.json")], check=True, env=environment)
    for (folder, texts), encoder in zip(asked, encoders.values(), strict=True):
        for kind in ("query", "document"):
            expected = list(np.load(Path(folder) / f"{kind}.npz").values())
            found = encoder.embed(texts, kind)
            assert found.counts.tolist() == [len(vectors) for vectors in expected]
            np.testing.assert_allclose(found.rows, np.concatenate(expected), atol=1e-6)
