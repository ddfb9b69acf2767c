"""The token at the end of a text, which models with last-token pooling read the whole text from.

A decoder model sees only what is to the left, so its vector is that of an end token behind the text. Some tokenizers
put one there, some leave it to the caller; without it the last word of a text would be its vector, silently.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embfit.errors import UserError
from embfit.tokens import Tokens, tokenizer_lock

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FLAGS = ("add_bos_token", "add_eos_token")  # by which some tokenizers rebuild their rules when they are loaded


def end_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the special token that a tokenizer puts behind every text; None if it puts none there."""
    text = "a"
    with tokenizer_lock(tokenizer):
        ids, bare = tokenizer(text)["input_ids"], tokenizer(text, add_special_tokens=False)["input_ids"]
    if ids[-len(bare) :] == bare or ids[-1] not in (*tokenizer.all_special_ids, tokenizer.eos_token_id):
        return None
    return int(ids[-1])


def append_end_token(tokenizer: PreTrainedTokenizerBase, path: str) -> None:
    """Have a fast tokenizer put its EOS token behind every text, within the maximum length; saved with it.

    Args:
        tokenizer: the tokenizer, which is changed in place unless it puts an end token there already.
        path: the model's path, which messages name.

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
    """Return tokenised texts, each of which ends in the end token.

    Raises:
        UserError: one does not, so that last-token pooling would read another token.
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
