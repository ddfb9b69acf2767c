"""A local model's prompt in three pieces: the part before all documents, the document, and the part after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from embfit.errors import UserError
from embfit.generator.plan import show_examples
from embfit.style import Style, StyleExample

LocalForm: TypeAlias = Literal["completion", "chat", "document"]

MARK = "\ue000document\ue000"  # the document's place in a prompt; its private-use characters occur in no text


@dataclass(frozen=True)
class PromptPieces:
    """The tokens around a document.

    Args:
        before: the tokens before every document, which are read once.
        after: the tokens between the document and the query.
        ending: the text of `after`, which is tokenized together with the document, since many tokenizers join a full
            stop and a line break to one token; empty for chat templates and models that read the document alone.
        blank: whether a blank precedes the document's text; word tokenizers include it in the first word.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    ending: str
    blank: bool

    def around(self, text: str, tokenizer: Any, most: int) -> list[int]:
        """Return the tokens of a document, cut to `most`, and those after it.

        A document's `</s>` or `<|im_end|>` is tokenized as plain characters, not as the special token.
        """
        plain = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
        tokens: list[int] = tokenizer(" " * self.blank + text, **plain)["input_ids"]
        if len(tokens) <= most and self.ending:  # together, as a server tokenizes the whole prompt
            tokens = tokenizer(" " * self.blank + text + self.ending, **plain)["input_ids"]
        else:
            tokens = [*tokens[:most], *self.after]
        return tokens


def prompt_pieces(
    form: LocalForm, style: Style, examples: Sequence[StyleExample], tokenizer: Any, language: str | None
) -> PromptPieces:
    """Return the pieces of one style's prompts.

    Args:
        form: `completion` continues a text that ends in the query's label; `chat` puts examples into turns of the
            tokenizer's chat template; `document` is the document alone, for models trained so (docTTTTTquery).
        style: the style of the queries.
        examples: few-shot examples.
        tokenizer: the model's tokenizer.
        language: the language of the queries, for the template.

    Raises:
        UserError: the tokenizer has no chat template, or a template cannot be read.
    """
    special = True  # whether the tokenizer adds special tokens
    if form == "document":
        text = MARK
    elif form == "completion":
        values = {"document": MARK, "examples": show_examples(examples, style.label, True), "label": style.label}
        text = style.continuation.fill({"count": "1", "language": language or "", **values})
    else:
        if not getattr(tokenizer, "chat_template", None):
            raise UserError(
                "generator.form=chat: the model's tokenizer has no chat template, so it is a base model; set "
                "generator.form=completion"
            )
        text = _turns(style, examples, tokenizer, language)
        special = False  # the chat template contains them
    before, _, after = text.partition(MARK)
    blank = before.endswith(" ")
    head = before.rstrip(" ")
    tokens = tokenizer(head, add_special_tokens=special, verbose=False)["input_ids"] if head or special else []
    ending: list[int] = []
    if form == "document":  # the special tokens that the tokenizer adds at the end follow the document
        added = tokenizer("", add_special_tokens=True)["input_ids"]
        tokens = [added[0]] if added and added[0] == tokenizer.bos_token_id else []
        ending = added[len(tokens) :]
    elif tokens and tokens[-1] == tokenizer.eos_token_id:
        tokens = tokens[:-1]
    behind = tokenizer(after, add_special_tokens=False, verbose=False)["input_ids"] if after else ending
    return PromptPieces(tuple(tokens), tuple(behind), after if form == "completion" else "", blank)


def _turns(style: Style, examples: Sequence[StyleExample], tokenizer: Any, language: str | None) -> str:
    def user_turn(document: str) -> dict[str, str]:
        values = {"count": "1", "document": document, "examples": "", "label": style.label.lower()}
        values["language"] = language or "the language of the document"
        return {"role": "user", "content": style.alone.fill(values)}

    shown = [[user_turn(one.document), {"role": "assistant", "content": one.query}] for one in examples]
    turns = [*(turn for pair in shown for turn in pair), user_turn(MARK)]
    text: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return text
