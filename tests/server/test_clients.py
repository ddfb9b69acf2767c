"""The guide's clients of other libraries, in an environment of their own: theirs pin other releases than embfit's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from embfit.model import Encoder
from tests.server.conftest import Served

GUIDE = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
CLIENTS = {"langchain_openai": "langchain-openai", "llama_index": "llama-index-embeddings-openai-like"}
SNIPPETS = {
    name: next(block for block in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL) if f"from {name}" in block)
    for name in CLIENTS
}


def test_the_guide_shows_both() -> None:
    for name, snippet in SNIPPETS.items():
        compile(snippet, name, "exec")


@pytest.mark.slow
@pytest.mark.parametrize("name", CLIENTS)
def test_the_guides_clients_get_the_models_vectors(
    name: str, served: Served, tiny_encoder: Encoder, tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    installed = subprocess.run([python, "-m", "pip", "install", "-q", CLIENTS[name]], capture_output=True, check=False)
    if installed.returncode:
        pytest.skip(f"{CLIENTS[name]} cannot be installed here")
    url = f"{str(served.client.base_url).rstrip('/')}/v1"
    script = f"URL = '{url}'\n{SNIPPETS[name]}\nimport json\nprint(json.dumps([*vectors, vector]))\n"
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = np.array(json.loads(done.stdout), np.float32)
    wanted = [
        *tiny_encoder.encode(["a document", "another one"], "document"),
        *tiny_encoder.encode(["how do I open a file"], "query"),
    ]
    assert np.abs(found - np.array(wanted)).max() < 1e-5
