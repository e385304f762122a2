"""Tokens of pairs of texts: each distinct text is tokenised once, however many pairs it is in.

A tokenizer reads the two texts of a pair apart, cuts them, and puts special tokens around and
between them. So the tokens of a pair can be joined from those of its texts, by the template that
`learn_template` reads from the tokenizer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from retrodistill.models.inference.batches import Features, on_device, padded
from retrodistill.models.inference.cuts import note_cuts
from retrodistill.models.inference.tokens import Tokens, rendered, reserved, tokenize

if TYPE_CHECKING:
    import torch

Ids = NDArray[np.int64]
PARTS = ("prefix", "first", "middle", "second", "suffix")


class PairTokens(Protocol):
    """The tokens of many pairs, to be taken out in batches."""

    lengths: Ids
    """Tokens of each pair, special ones included, after the cut."""

    def batch(self, positions: Ids, device: "torch.device") -> Features:
        """Return the model's inputs for some pairs, padded to the longest of them."""
        ...


def pair_tokens(
    tokenizer: Any,
    firsts: Sequence[str],
    seconds: Sequence[str],
    rows: tuple[Ids, Ids],
    *,
    max_tokens: int,
) -> PairTokens:
    """Return the tokens of the pairs (firsts[rows[0][i]], seconds[rows[1][i]]).

    They are exactly those that the tokenizer gives for the pairs of texts. A tokenizer that
    does more than join two texts tokenises each pair.
    """
    template = learn_template(tokenizer)
    if template is None:
        texts = [firsts[row] for row in rows[0]], [seconds[row] for row in rows[1]]
        return _PairRows(tokenizer, tokenize(tokenizer, *texts, max_tokens=max_tokens), {})
    return _JoinedPairs(tokenizer, template, firsts, seconds, rows, max_tokens)


def rendered_pairs(
    body: Any,
    firsts: Sequence[str],
    seconds: Sequence[str],
    rows: tuple[Ids, Ids],
    *,
    prompt: str,
    max_tokens: int,
) -> PairTokens:
    """Return the tokens of pairs of a model with a chat template, as its library renders them."""
    pairs = [(firsts[i], seconds[j]) for i, j in zip(*rows, strict=True)]
    tokens, beside = rendered(body, pairs, prompt=prompt, max_tokens=max_tokens)
    return _PairRows(body.tokenizer, tokens, beside)


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """Special tokens before, between and after two texts, and the type of each part's tokens."""

    special: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    special_types: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    types: tuple[int, int]


def learn_template(tokenizer: Any) -> PairTemplate | None:
    """Return the template by which a tokenizer joins two texts, or None if it does more.

    Only tokenizers that pad and cut at the right, and that know the text of each token (the
    fast ones), have a template.
    """
    sides = {tokenizer.padding_side, tokenizer.truncation_side}
    if not tokenizer.is_fast or sides != {"right"}:
        return None
    texts = ("what is it", "something else")
    with reserved(tokenizer):
        pair = tokenizer(*texts, return_token_type_ids=True, return_attention_mask=False)
        alone = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    ids, types, owners = pair["input_ids"], pair["token_type_ids"], pair.sequence_ids(0)
    cuts = [owners.index(0), _after(owners, 0), owners.index(1), _after(owners, 1)]
    if [ids[cuts[0] : cuts[1]], ids[cuts[2] : cuts[3]]] != alone:
        return None
    spans = (slice(0, cuts[0]), slice(cuts[1], cuts[2]), slice(cuts[3], None))
    before, between, after = (tuple(ids[span]) for span in spans)
    types_before, types_between, types_after = (tuple(types[span]) for span in spans)
    return PairTemplate(
        (before, between, after),
        (types_before, types_between, types_after),
        (types[cuts[0]], types[cuts[2]]),
    )


def longest_first(
    firsts: Ids, seconds: Ids, budget: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how many tokens to keep of each text, so that a pair has at most `budget`.

    The longer text is cut to the length of the shorter, then both to one half: what
    `truncation=True` does in transformers' fast tokenizers.
    """
    short, long = np.minimum(firsts, seconds), np.maximum(firsts, seconds)
    fits = short + long <= budget
    only_long = np.maximum(short, budget - short)
    halves = (short > budget) | (short + only_long > budget)
    kept_short = np.where(fits, short, np.where(halves, budget // 2, short))
    kept_long = np.where(fits, long, np.where(halves, budget - budget // 2, only_long))
    swapped = firsts > seconds
    return np.where(swapped, kept_long, kept_short), np.where(swapped, kept_short, kept_long)


class _JoinedPairs:
    """Pairs whose tokens are gathered from one bank: the special ones, then each text's."""

    def __init__(
        self,
        tokenizer: Any,
        template: PairTemplate,
        firsts: Sequence[str],
        seconds: Sequence[str],
        rows: tuple[Ids, Ids],
        max_tokens: int,
    ) -> None:
        # One bank of tokens: the special ones, then those of all first and all second texts.
        self._names = set(tokenizer.model_input_names)
        special = [np.array(ids, np.int64) for ids in template.special]
        room = max(0, max_tokens - sum(map(len, special)))
        bank, types = [*special], [np.array(ids, np.int64) for ids in template.special_types]
        starts, lengths = [], []
        offset = sum(map(len, special))
        for texts, kind in zip((firsts, seconds), template.types, strict=True):
            tokens, sizes = _text_tokens(tokenizer, texts, room)
            counts = np.array([len(ids) for ids in tokens], np.int64)
            starts.append(offset + np.cumsum(counts) - counts)
            lengths.append(sizes)
            offset += int(counts.sum())
            bank.extend(tokens)
            types.append(np.full(int(counts.sum()), kind, np.int64))
        padding = [tokenizer.pad_token_id], [tokenizer.pad_token_type_id]
        self._bank = np.concatenate([*bank, padding[0]]).astype(np.int32)
        self._types = np.concatenate([*types, padding[1]]).astype(np.int8)
        # How much of each text a pair keeps.
        shares = longest_first(lengths[0][rows[0]], lengths[1][rows[1]], room)
        whole = lengths[0][rows[0]] + lengths[1][rows[1]]
        note_cuts(whole, np.add(*shares), max_tokens, noun="pairs")
        fixed = np.cumsum([0, *map(len, special)])
        # Where each part of a pair starts in the bank, and how long it is: (parts, pairs).
        shape = len(rows[0])
        self._starts = np.stack(
            [
                np.full(shape, fixed[0]),
                starts[0][rows[0]],
                np.full(shape, fixed[1]),
                starts[1][rows[1]],
                np.full(shape, fixed[2]),
            ]
        )
        self._sizes = np.stack(
            [
                np.full(shape, len(special[0])),
                shares[0],
                np.full(shape, len(special[1])),
                shares[1],
                np.full(shape, len(special[2])),
            ]
        )
        self.lengths: Ids = self._sizes.sum(0)

    def batch(self, positions: Ids, device: "torch.device") -> Features:
        import torch

        # The bank's position of each token, (pairs, longest): part by part, padding elsewhere.
        column = np.arange(int(self.lengths[positions].max()))[None]
        source = np.full((len(positions), column.shape[1]), len(self._bank) - 1)
        begin = np.zeros((len(positions), 1), np.int64)
        for number in range(len(PARTS)):
            end = begin + self._sizes[number, positions][:, None]
            inside = (column >= begin) & (column < end)
            starts = self._starts[number, positions][:, None]
            np.copyto(source, starts + column - begin, where=inside)
            begin = end
        columns = {"input_ids": self._bank[source], "attention_mask": column < begin}
        if "token_type_ids" in self._names:
            columns["token_type_ids"] = self._types[source]
        tensors = {name: torch.from_numpy(ids.astype(np.int64)) for name, ids in columns.items()}
        return on_device(tensors, device)


class _PairRows:
    """Pairs that were tokenised one by one."""

    def __init__(self, tokenizer: Any, rows: Sequence[Tokens], beside: dict[str, Any]) -> None:
        self._tokenizer, self._rows, self._beside = tokenizer, rows, beside
        self.lengths: Ids = np.array([len(row["input_ids"]) for row in rows], np.int64)

    def batch(self, positions: Ids, device: "torch.device") -> Features:
        batch = padded(self._tokenizer, [self._rows[position] for position in positions], device)
        return batch.joined(self._beside)


def _text_tokens(tokenizer: Any, texts: Sequence[str], room: int) -> tuple[list[Ids], Ids]:
    """Return the first `room` tokens of each text, and how many it has in all."""
    if not texts:
        return [], np.zeros(0, np.int64)
    with reserved(tokenizer):
        rows = tokenizer(
            list(texts),
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
    sizes = np.array([len(row) for row in rows], np.int64)
    return [np.array(row[:room], np.int64) for row in rows], sizes


def _after(owners: Sequence[int | None], owner: int) -> int:
    """Return the position behind the last token of a text."""
    return len(owners) - list(reversed(owners)).index(owner)
