"""The end token of a text, whose hidden state is the text's vector in models with last-token pooling.

A decoder model attends only to the left, so its vector is that of an end token after the text. Some tokenizers append
one, others leave it to the caller. Without it, the last word of a text would silently become its vector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embfit.errors import UserError
from embfit.tokens import Tokens, tokenizer_lock

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FLAGS = ("add_bos_token", "add_eos_token")  # some tokenizers rebuild their rules from it when they are loaded


def end_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the special token that a tokenizer appends to every text; None if it appends none."""
    text = "a"
    with tokenizer_lock(tokenizer):
        ids, bare = tokenizer(text)["input_ids"], tokenizer(text, add_special_tokens=False)["input_ids"]
    if ids[-len(bare) :] == bare or ids[-1] not in (*tokenizer.all_special_ids, tokenizer.eos_token_id):
        return None
    return int(ids[-1])


def append_end_token(tokenizer: PreTrainedTokenizerBase, path: str) -> None:
    """Make a fast tokenizer append its EOS token to every text, within the maximum length; the change is saved with it.

    Args:
        tokenizer: the tokenizer, which is changed in place unless it already appends an end token.
        path: the model's path, for messages.

    Raises:
        UserError: the tokenizer has no EOS token.
    """
    if end_token(tokenizer) is not None:
        return
    if tokenizer.eos_token is None:
        raise UserError(
            f"model.pooling=lasttoken: the tokenizer of {path} has no EOS token to read a text from; "
            "set model.pooling=mean"
        )
    from tokenizers.processors import Sequence, TemplateProcessing

    eos = str(tokenizer.eos_token)
    last = TemplateProcessing(
        single=f"$A {eos}", pair=f"$A $B {eos}", special_tokens=[(eos, int(tokenizer.eos_token_id))]
    )
    rules = tokenizer.backend_tokenizer
    rules.post_processor = Sequence([rules.post_processor, last]) if rules.post_processor else last
    for flag in FLAGS:
        tokenizer.init_kwargs.pop(flag, None)


def check_ends(tokens: Tokens, end: int | None) -> Tokens:
    """Return tokenised texts, after checking that each ends in the end token.

    Raises:
        UserError: a text does not, so last-token pooling would read another token.
    """
    last = tokens.ids[tokens.starts[1:] - 1]
    wrong = (last != end) | (tokens.lengths == 0)
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"model.pooling=lasttoken: text {row} ends in token {int(last[row])}, not in the end token "
            f"({'which this tokenizer lacks' if end is None else end}); set model.pooling=mean, or load the model with "
            "embfit.model.Pretrained, which has the tokenizer append one"
        )
    return tokens
