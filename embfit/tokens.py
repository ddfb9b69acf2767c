"""Tokenised text in flat arrays, and length-sorted batches under a token budget.

Texts are tokenised once. Batches are then made of row numbers, so de-duplication, sorting and padding cost nothing, and
the training loop never sees a string.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.lib.format import write_array_header_2_0
from torch import Tensor

from embfit.ragged import lengths_of, offsets_of, part_of, take_from

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BLOCK = 4096  # texts tokenised at a time
ATTENDED, SCORED, ASKED = 1, 2, 4  # bits of a token's role: it is attended to; it gives a vector; it belongs to a query
_LOCKS: WeakKeyDictionary[PreTrainedTokenizerBase, Lock] = WeakKeyDictionary()
_LOCKS_LOCK = Lock()  # of the table itself


@dataclass(frozen=True)
class Tokens:
    """Token ids of N texts, one after another.

    Args:
        ids: [total tokens] int32, possibly memory-mapped.
        starts: [N + 1] int64; text i is `ids[starts[i]:starts[i + 1]]`.
        truncated: [N] bool; texts that were longer than the limit.
        roles: [total tokens] uint8, sums of `ATTENDED`, `SCORED` and `ASKED`; None if all tokens are attended, a
            text has one vector, and queries are computed like documents.
        folder: the folder of the arrays; None if they are only in memory.
    """

    ids: np.ndarray
    starts: np.ndarray
    truncated: np.ndarray
    roles: np.ndarray | None = None
    folder: Path | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle arrays that are in a folder as the folder's name, so that other processes map the same memory."""
        if self.folder is not None:
            return Tokens.load, (self.folder,)
        return Tokens, (self.ids, self.starts, self.truncated, self.roles)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text, special tokens included ([N] int64)."""
        return np.diff(self.starts)

    @property
    def scored(self) -> np.ndarray:
        """The number of tokens of each text that give a vector ([N] int64)."""
        counts = np.zeros(len(self), np.int64)
        filled = np.flatnonzero(self.lengths)
        if self.roles is not None and len(filled):
            counts[filled] = np.add.reduceat(self.roles & SCORED != 0, self.starts[filled], dtype=np.int64)
        return counts

    def take(self, rows: np.ndarray | Sequence[int]) -> Tokens:
        """Return the texts of some rows, in the order given."""
        chosen = np.asarray(rows, np.int64)
        roles = None if self.roles is None else take_from(self.roles, self.starts, chosen)[0]
        return Tokens(*take_from(self.ids, self.starts, chosen), self.truncated[chosen], roles)

    def part(self, start: int, stop: int) -> Tokens:
        """Return the texts from `start` up to `stop`, without copying their tokens."""
        roles = None if self.roles is None else part_of(self.roles, self.starts, start, stop)[0]
        return Tokens(*part_of(self.ids, self.starts, start, stop), self.truncated[start:stop], roles)

    def padded(self, rows: np.ndarray, pad: int, left: bool = False) -> tuple[Tensor, Tensor]:
        """Return the ids and the roles of some rows' tokens ([n, longest] int64 each).

        The role of padding is 0. If the texts have no roles, the second array is the attention mask.

        Args:
            rows: [n] row numbers.
            pad: the tokenizer's padding id.
            left: pad on the left, as decoder models expect.
        """
        counts = lengths_of(self.starts, rows)
        columns = np.arange(counts.max())
        offsets = (
            columns - (counts.max() - counts)[:, None] if left else np.broadcast_to(columns, (len(rows), len(columns)))
        )
        real = (offsets >= 0) & (offsets < counts[:, None])
        ids, roles = np.full(real.shape, pad, np.int64), np.zeros(real.shape, np.int64)
        places = (self.starts[rows][:, None] + offsets)[real]
        ids[real] = self.ids[places]
        roles[real] = ATTENDED if self.roles is None else self.roles[places]
        return torch.from_numpy(ids), torch.from_numpy(roles)

    def save(self, folder: Path) -> None:
        """Write the arrays into a folder, for `load`."""
        self.save_blocks([self], folder)

    @staticmethod
    def save_blocks(blocks: Iterable[Tokens], folder: Path) -> None:
        """Write blocks of texts one after another, for `load`, with one block in memory at a time."""
        starts, truncated = [np.zeros(1, np.int64)], [np.zeros(0, bool)]
        with ExitStack() as files:
            add_ids = files.enter_context(_growing(folder / "ids.npy", np.dtype(np.int32)))
            add_roles = None
            for block in blocks:
                add_ids(block.ids)
                if block.roles is not None:
                    add_roles = add_roles or files.enter_context(_growing(folder / "roles.npy", np.dtype(np.uint8)))
                    add_roles(block.roles)
                starts.append(block.starts[1:] + starts[-1][-1])
                truncated.append(block.truncated)
        np.save(folder / "starts.npy", np.concatenate(starts))
        np.save(folder / "truncated.npy", np.concatenate(truncated))

    @staticmethod
    def load(folder: Path) -> Tokens:
        """Open arrays that `save` wrote, memory-mapped."""
        ids, starts, truncated = (
            np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("ids", "starts", "truncated")
        )
        path = folder / "roles.npy"
        roles = np.load(path, mmap_mode="r") if path.is_file() else None
        return Tokens(ids, starts, truncated, roles, folder.absolute())


@contextmanager
def _growing(path: Path, kind: np.dtype[Any]) -> Iterator[Callable[[np.ndarray], None]]:
    """Write a one-dimensional array by appending values; its length is known only at the end."""
    length = 0

    def header() -> dict[str, Any]:
        return {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": (length,)}

    def add(values: np.ndarray) -> None:
        nonlocal length
        file.write(np.ascontiguousarray(values, kind).data)
        length += len(values)

    with path.open("wb") as file:
        write_array_header_2_0(file, header())
        yield add
        file.seek(0)
        write_array_header_2_0(file, header())  # the header keeps its length: NumPy leaves room in it


def concatenate(parts: Sequence[Tokens]) -> Tokens:
    """Join the texts of several `Tokens`; if only some have roles, the tokens of the others count as attended."""
    known = any(one.roles is not None for one in parts)
    roles = [np.full(len(one.ids), ATTENDED, np.uint8) if one.roles is None else one.roles for one in parts]
    return Tokens(
        np.concatenate([np.zeros(0, np.int32), *(one.ids for one in parts)]),
        offsets_of(np.concatenate([np.zeros(0, np.int64), *(one.lengths for one in parts)])),
        np.concatenate([np.zeros(0, bool), *(one.truncated for one in parts)]),
        np.concatenate(roles) if known else None,
    )


def tokenize(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], max_length: int, prompt: str = "", special: bool = True
) -> Tokens:
    """Tokenise texts, cut at `max_length`.

    Args:
        tokenizer: a fast (Rust) tokenizer; its own settings of length and padding are overridden.
        texts: the texts, which are read once, in blocks.
        max_length: the most tokens of each text, including special tokens.
        prompt: the text that is put before each text.
        special: whether to add the special tokens of a single text; a part of a pair has none of its own.
    """
    return concatenate(list(tokenize_blocks(tokenizer, texts, max_length, prompt, special=special)))


def tokenize_blocks(
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str],
    max_length: int,
    prompt: str = "",
    block: int = BLOCK,
    special: bool = True,
) -> Iterator[Tokens]:
    """Tokenise like `tokenize`, in blocks; a thread makes the next block while the caller uses the current one.

    The caller's own thread makes the first block, so a single block, as for a query, starts no thread.
    """
    blocks = iter(texts)

    def make() -> Tokens | None:
        chosen = [prompt + text for text in islice(blocks, block)]
        return _tokenize_block(tokenizer, chosen, max_length, special) if chosen else None

    first = make()
    if first is None:
        return
    if len(first) < block:
        yield first
        return
    with ThreadPoolExecutor(1) as thread:
        pending = thread.submit(make)
        yield first
        while (ready := pending.result()) is not None:
            pending = thread.submit(make)
            yield ready


def plan_batches(lengths: np.ndarray, token_budget: int) -> list[np.ndarray]:
    """Cut texts into batches of similar length whose padded area stays under a budget.

    Args:
        lengths: [N] tokens of each text.
        token_budget: the largest product of a batch's rows and its longest row; a longer text is a batch of its own.

    Returns:
        Arrays of row numbers, longest texts first, so that the largest batch shows a lack of memory at once.
    """
    order = np.argsort(-lengths, kind="stable")
    batches = []
    start = 0
    while start < len(order):
        size = max(1, token_budget // max(int(lengths[order[start]]), 1))
        batches.append(order[start : start + size])
        start += size
    return batches


def padding_share(lengths: np.ndarray, batches: Sequence[np.ndarray]) -> float:
    """Return the share of a plan's area that is padding (0 to 1)."""
    area = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    return 1 - float(lengths.sum()) / area if area else 0.0


def tokenizer_lock(tokenizer: PreTrainedTokenizerBase) -> Lock:
    """Return the lock for calls of a tokenizer, whose truncation length is a state of the object.

    Without it, two threads with different lengths would get each other's.
    """
    with _LOCKS_LOCK:
        return _LOCKS.setdefault(tokenizer, Lock())


def _tokenize_block(tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int, special: bool) -> Tokens:
    with tokenizer_lock(tokenizer):
        batch = tokenizer(
            texts,
            truncation=True,
            max_length=max_length,
            padding=False,
            return_attention_mask=False,
            add_special_tokens=special,
        )
    starts = offsets_of([len(ids) for ids in batch["input_ids"]])
    flat = np.fromiter((token for ids in batch["input_ids"] for token in ids), np.int32, int(starts[-1]))
    truncated = np.array([bool(encoding.overflowing) for encoding in batch.encodings], bool)
    return Tokens(flat, starts, truncated)
