"""Prompts as token ids: each distinct text is tokenised once, then joined with the template."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError
from retrodistill.base.types import Rows
from retrodistill.models.inference.cuts import note_cuts

STEADY = ("query", "answer")
"""Slots of texts that belong to a query: they are cut only where they take half of the room."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A slot with the template's text around it, up to the neighbours' pieces."""

    slot: str
    context: str
    """Text before the piece; tokenised with it, and dropped again."""

    before: str
    after: str
    head: int
    """Tokens of `before`."""

    tail: tuple[int, ...]
    """Tokens of `after`."""

    @property
    def fixed(self) -> int:
        """Tokens of the template in this piece."""
        return self.head + len(self.tail)


class Template:
    """A prompt with slots, such as `question: {query} context: {doc}`, joined from tokens.

    Tokenizers do not reach across a space, so the template is taken apart at the spaces before
    its slots, each part is tokenised with its text, and the parts are joined. Slots: `query` or
    `answer`, and one or more documents. Of what is longer than `max_tokens`, the documents lose
    their ends, evenly; a query loses its own only where it is more than half of what the template
    leaves (if `steady`, regardless of the documents, so that it is the same with each). The
    template itself, and so what follows a document, is never cut.

    Raises:
        ConfigError: a slot is missing, comes twice, or the template leaves no room for texts.

    """

    def __init__(
        self,
        tokenizer: Any,
        text: str,
        slots: Sequence[str],
        *,
        max_tokens: int,
        special: tuple[Sequence[int], Sequence[int]] = ((), ()),
        steady: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.text = text
        self.special = special
        self.steady = steady
        self.pieces = self._take_apart(slots)
        fixed = sum(map(len, special)) + sum(piece.fixed for piece in self.pieces)
        self.max_tokens = max_tokens
        self.room = max_tokens - fixed
        if self.room < 2 * len(slots):
            raise ConfigError(
                f"the template takes {fixed} tokens, which leaves too little of --max-tokens "
                f"{max_tokens} for its texts. Raise it, or shorten the template."
            )

    def fill(self, texts: Mapping[str, tuple[Sequence[str], Rows]]) -> "Prompts":
        """Return the prompts that have, in each slot, the named rows of distinct texts."""
        banks = [self._tokens(piece, texts[piece.slot][0]) for piece in self.pieces]
        return Prompts(self, banks, [texts[piece.slot][1] for piece in self.pieces])

    def answer(self, word: str) -> int:
        """Return the one token that the word is when it follows the template.

        Raises:
            ConfigError: it is several tokens.

        """
        return one_token(self.tokenizer, word, "a" + self.pieces[-1].after)

    def _take_apart(self, slots: Sequence[str]) -> list[Piece]:
        parts = re.split(rf"\{{({'|'.join(slots)})\}}", self.text)
        literals, names = parts[::2], parts[1::2]
        if sorted(names) != sorted(slots):
            required = " and ".join(f"{{{slot}}}" for slot in slots)
            raise ConfigError(f"a template needs {required}, once each, but it is {self.text!r}.")
        heads, tails = literals[:1], []
        for literal in literals[1:-1]:
            tails.append(literal.rstrip(" "))
            heads.append(literal[len(tails[-1]) :])
        tails.append(literals[-1])
        contexts = ["", *("a" + after for after in tails)]
        return [
            Piece(
                slot=name,
                context=context,
                before=before,
                after=after,
                head=len(continuation(self.tokenizer, context, [before])[0]),
                tail=tuple(continuation(self.tokenizer, "a", [after])[0]),
            )
            for name, context, before, after in zip(names, contexts, heads, tails, strict=False)
        ]

    def _tokens(self, piece: Piece, texts: Sequence[str]) -> list[list[int]]:
        whole = [piece.before + text + piece.after for text in texts]
        return continuation(self.tokenizer, piece.context, whole)


class Prompts:
    """Filled templates, whose tokens are joined when a batch needs them."""

    def __init__(
        self, template: Template, banks: Sequence[list[list[int]]], rows: Sequence[Rows]
    ) -> None:
        self._template = template
        self._banks = banks
        self._rows = rows
        fixed = np.array([piece.fixed for piece in template.pieces])[:, None]
        whole = np.stack(
            [
                np.array([len(ids) for ids in bank], np.int64)[bank_rows]
                for bank, bank_rows in zip(banks, rows, strict=True)
            ]
        )
        queries = np.array([piece.slot in STEADY for piece in template.pieces])
        self.parts: Rows = fixed + shares(
            whole - fixed, queries, template.room, steady=template.steady
        )
        """Tokens of each piece of each prompt, of shape (pieces, prompts)."""
        self._cut = self.parts < whole
        note_cuts(whole.sum(0), self.parts.sum(0), template.max_tokens, noun="prompts")
        self.lengths: Rows = self.parts.sum(0) + sum(map(len, template.special))

    def __len__(self) -> int:
        return len(self.lengths)

    def ids(self, prompt: int) -> list[int]:
        """Return the tokens of one prompt."""
        start, end = self._template.special
        joined = list(start)
        for number, piece in enumerate(self._template.pieces):
            tokens = self._banks[number][self._rows[number][prompt]]
            if self._cut[number, prompt]:
                length = self.parts[number, prompt] - len(piece.tail)
                tokens = [*tokens[:length], *piece.tail]
            joined += tokens
        return [*joined, *end]


def shares(sizes: Rows, queries: NDArray[np.bool_], room: int, *, steady: bool = False) -> Rows:
    """Return the number of tokens to keep of each text, so that a prompt's texts fit in `room`.

    `sizes` has shape (texts of a prompt, prompts); `queries` marks the texts that are
    queries. These keep half of the room, and, unless `steady`, what the documents do not need.
    Documents share the rest evenly; a short one leaves its share to the others.
    """
    if queries.all():
        return np.minimum(sizes, room)
    # Queries: half of the room, or all that the documents leave free.
    docs = sizes[~queries]
    free = 0 if steady else room - docs.clip(min=0).sum(0)
    shared = np.where(queries[:, None], np.minimum(sizes, np.maximum(room // 2, free)), sizes)
    # Documents: an even share of the room that remains, or all that the other documents leave.
    doc_room = room - shared[queries].clip(min=0).sum(0)
    other_docs = docs.clip(min=0).sum(0) - docs.clip(min=0)
    shared[~queries] = np.minimum(docs, np.maximum(doc_room // len(docs), doc_room - other_docs))
    return shared


def continuation(tokenizer: Any, context: str, texts: Sequence[str]) -> list[list[int]]:
    """Return the tokens of each text where it follows a context, without those of the context."""
    if not texts:
        return []
    options = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
    skip = len(tokenizer(context, **options)["input_ids"]) if context else 0
    rows: list[list[int]] = tokenizer([context + text for text in texts], **options)["input_ids"]
    return [row[skip:] for row in rows]


def one_token(tokenizer: Any, word: str, context: str = "") -> int:
    """Return the one token that a word is where it follows a context.

    Raises:
        ConfigError: it is none or several.

    """
    (ids,) = continuation(tokenizer, context, [word])
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        tokens = tokenizer.convert_ids_to_tokens(ids)
        raise ConfigError(
            f"an answer must be one token of the model, but {word!r} is {tokens}. "
            "Set the words that this model was trained to answer with."
        )
    return ids[0]


def special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the special tokens that a tokenizer puts before and after a text."""
    (bare,) = continuation(tokenizer, "", ["a"])
    full = tokenizer("a")["input_ids"]
    start = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
    return full[:start], full[start + len(bare) :]
