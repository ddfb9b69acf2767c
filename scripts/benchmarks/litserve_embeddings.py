"""A server of sentence-transformers embeddings by LitServe, for `serving_peers.py`; run in an environment of its own.

It batches as LitServe does: up to `--batch` requests, or what has come within `--wait` seconds of the first. LitServe
reads the annotations of `decode_request` when it starts, so this file does not put them off.

    pip install litserve sentence-transformers
    python scripts/benchmarks/litserve_embeddings.py MODEL_FOLDER --port 7998
"""

import argparse
import base64
from typing import Any

import litserve
import numpy as np
from sentence_transformers import SentenceTransformer


class Embeddings(litserve.LitAPI):  # type: ignore[misc]  # LitServe has no types
    """Embeds one text a request, in batches, in OpenAI's shape."""

    def __init__(self, folder: str, batch: int, wait: float) -> None:
        super().__init__(max_batch_size=batch, batch_timeout=wait, api_path="/v1/embeddings")
        self.folder = folder

    def setup(self, device: str) -> None:
        """Load the model."""
        self.model = SentenceTransformer(self.folder, device="cpu")

    def decode_request(self, request: dict[str, Any]) -> str:
        """Return the text of a request."""
        return str(request["input"])

    def predict(self, texts: list[str]) -> np.ndarray:
        """Return the vectors of a batch, [N, D]."""
        return self.model.encode(texts, normalize_embeddings=True, show_progress_bar=False)

    def encode_response(self, vector: np.ndarray) -> dict[str, Any]:
        """Return the answer to a request, as base64."""
        encoded = base64.b64encode(np.asarray(vector, np.float32).tobytes()).decode()
        return {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": encoded}]}


def main() -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the model's folder")
    parser.add_argument("--port", type=int, default=7998)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--wait", type=float, default=0.005, help="seconds; 0 keeps a core busy while idle")
    given = parser.parse_args()
    server = litserve.LitServer(Embeddings(given.model, given.batch, given.wait), accelerator="cpu", timeout=120)
    server.run(host="127.0.0.1", port=given.port, generate_client_file=False)


if __name__ == "__main__":
    main()
