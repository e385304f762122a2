"""Chunking: cut long texts into overlapping passages, at headings and between sentences.

Sizes are in model-independent tokens: seven letters of a word, two digits of a number, one
Chinese, Japanese or Korean character, or one punctuation mark are a token each. English documents
have 0.9 to 1.0 times as many of them as wordpieces of BERT's vocabulary.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

PIECE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\d_]{1,7}|\d{1,2}|[^\w\s]|_")

BOUNDARY = re.compile(
    r"(?<=[.!?…])[\"'”’)\]]*\s+(?=[\"'“‘(\[]*[A-Z0-9À-Þ])"  # noqa: RUF001 - a sentence
    r"|(?<=[。！？])"  # noqa: RUF001
    r"|\n[ \t]*\n\s*"  # a paragraph
    r"|\n(?=[ \t]*(?:[-*•]|\d+[.)])[ \t])"  # an item of a list
)

SMALL = 4
"""A passage below 1 / SMALL of the size is joined with its neighbour, if both fit into one."""


@dataclass(frozen=True, slots=True)
class TextSection:
    """A part of a document under a heading, which may be empty."""

    heading: str
    text: str


@dataclass(frozen=True, slots=True)
class Unit:
    """A sentence, or a part of a long one: its bounds in the text, and its number of tokens."""

    start: int
    end: int
    tokens: int


def count_tokens(text: str) -> int:
    """Return the approximate number of tokens of a text."""
    return len(PIECE.findall(text))


def cut_sections(
    sections: Sequence[TextSection], *, tokens: int, overlap: int
) -> list[TextSection]:
    """Return the passages of a document, of at most `tokens` tokens, under their headings.

    Consecutive passages of a section overlap by whole sentences of at most `overlap` tokens.
    A small passage is joined with the one before it; its heading becomes part of the text.
    """
    passages: list[TextSection] = []
    sizes: list[int] = []
    for section in sections:
        for number, text in enumerate(cut_text(section.text, tokens=tokens, overlap=overlap)):
            size = count_tokens(text)
            joined = section.heading if number == 0 else ""
            more = size + count_tokens(joined)
            if passages and not number and min(sizes[-1], size) < tokens // SMALL:
                if sizes[-1] + more <= tokens:
                    parts = (passages[-1].text, joined, text)
                    passages[-1] = TextSection(
                        passages[-1].heading, "\n\n".join(filter(None, parts))
                    )
                    sizes[-1] += more
                    continue
            passages.append(TextSection(section.heading, text))
            sizes.append(size)
    return passages


def cut_text(text: str, *, tokens: int, overlap: int) -> list[str]:
    """Return consecutive passages of at most `tokens` tokens, of whole sentences where they fit.

    Each begins with the last sentences of the previous one, of at most `overlap` tokens.
    """
    units = list(_units(text, tokens))
    passages = []
    start = 0
    while start < len(units):
        end, total = start, 0
        while end < len(units) and total + units[end].tokens <= tokens:
            total += units[end].tokens
            end += 1
        passages.append(text[units[start].start : units[end - 1].end].strip())
        if end == len(units):
            break
        room = min(overlap, tokens - units[end].tokens)
        overlap_start = end
        while overlap_start - 1 > start and units[overlap_start - 1].tokens <= room:
            overlap_start -= 1
            room -= units[overlap_start].tokens
        start = overlap_start
    return passages


def _units(text: str, tokens: int) -> Iterator[Unit]:
    """Yield the sentences of a text; those of more than `tokens` tokens in parts of whole words."""
    start = 0
    ends = [match.end() for match in BOUNDARY.finditer(text)]
    for end in [*ends, len(text)]:
        words = [match.start() for match in PIECE.finditer(text, start, end)]
        begin = 0
        while begin < len(words):
            stop = min(begin + tokens, len(words))
            if stop < len(words):
                word = stop
                while word > begin and not text[words[word] - 1].isspace():
                    word -= 1
                stop = word if word > begin else stop
            after = words[stop] if stop < len(words) else end
            yield Unit(start, after, stop - begin)
            start, begin = after, stop
        start = end
