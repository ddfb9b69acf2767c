"""Texts in, token ids out, padded to one of a few lengths: Triton's Python back end runs this file as a model.

Triton batches only requests whose inputs have equal shapes, so unpadded texts would hardly ever be batched. This file
needs only `tokenizers` and NumPy, because embfit is not installed where it runs. Its settings are the `parameters` of
its `config.pbtxt`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton  # type: ignore[import-not-found]  # Triton's own, where this runs
from tokenizers import Tokenizer


class TritonPythonModel:
    """The name by which Triton finds it."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the tokenizer beside this file, and the settings."""
        given = json.loads(args["model_config"])["parameters"]
        settings: dict[str, Any] = {name: value["string_value"] for name, value in given.items()}
        self.lengths = [int(length) for length in settings["lengths"].split(",")]
        self.prompt = json.loads(settings["prompt"])
        self.padding_id = int(settings["padding_id"])
        self.pads_left = settings["padding_side"] == "left"
        self.tokenizer = Tokenizer.from_file(str(Path(__file__).with_name("tokenizer.json")))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(self.lengths[-1])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request with ids and mask, [N, L] int64 each; L is the shortest length that fits."""
        return [triton.InferenceResponse(output_tensors=self._tokens(request)) for request in requests]

    def _tokens(self, request: Any) -> list[Any]:
        texts = triton.get_input_tensor_by_name(request, "text").as_numpy().reshape(-1)
        read = self.tokenizer.encode_batch([self.prompt + text.decode("utf-8") for text in texts])
        longest = max(len(encoding.ids) for encoding in read)
        length = next(length for length in self.lengths if length >= longest)
        ids = np.full((len(read), length), self.padding_id, np.int64)
        mask = np.zeros((len(read), length), np.int64)
        for row, encoding in enumerate(read):
            place = slice(length - len(encoding.ids), None) if self.pads_left else slice(0, len(encoding.ids))
            ids[row, place], mask[row, place] = encoding.ids, 1
        return [triton.Tensor("input_ids", ids), triton.Tensor("attention_mask", mask)]
