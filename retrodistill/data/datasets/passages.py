"""Long texts cut into passages: at headings and between sentences, with some overlap.

A size is in tokens of no model's own: a word counts one for each seven letters, a number one for
each two digits, a Chinese, Japanese or Korean character and a punctuation mark one. English
documents have 0.9 to 1.0 times as many of them as wordpieces of BERT's vocabulary.
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
"""A passage below this part of the size is joined with its neighbour, if both fit into one."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a document under a heading, which may be empty."""

    heading: str
    text: str


@dataclass(frozen=True, slots=True)
class Unit:
    """A sentence, or a part of a long one: where it stands in its text, and its tokens."""

    start: int
    end: int
    tokens: int


def count_tokens(text: str) -> int:
    """Return about how many tokens a text has."""
    return len(PIECE.findall(text))


def cut_sections(sections: Sequence[Section], *, tokens: int, overlap: int) -> list[Section]:
    """Return the passages of a document, of at most `tokens` tokens, under their headings.

    Consecutive passages of a section share their border sentences, of at most `overlap` tokens.
    A small passage is joined with the one before it; its heading is then in the text.
    """
    passages: list[Section] = []
    sizes: list[int] = []
    for section in sections:
        for number, text in enumerate(cut_text(section.text, tokens=tokens, overlap=overlap)):
            size = count_tokens(text)
            joined = section.heading if number == 0 else ""
            more = size + count_tokens(joined)
            if passages and not number and min(sizes[-1], size) < tokens // SMALL:
                if sizes[-1] + more <= tokens:
                    parts = (passages[-1].text, joined, text)
                    passages[-1] = Section(passages[-1].heading, "\n\n".join(filter(None, parts)))
                    sizes[-1] += more
                    continue
            passages.append(Section(section.heading, text))
            sizes.append(size)
    return passages


def cut_text(text: str, *, tokens: int, overlap: int) -> list[str]:
    """Return consecutive parts of a text, none over `tokens` tokens, whole sentences if they fit.

    Each begins with the last sentences of the one before, of at most `overlap` tokens.
    """
    units = list(_units(text, tokens))
    parts = []
    first = 0
    while first < len(units):
        last, total = first, 0
        while last < len(units) and total + units[last].tokens <= tokens:
            total += units[last].tokens
            last += 1
        parts.append(text[units[first].start : units[last - 1].end].strip())
        if last == len(units):
            break
        room = min(overlap, tokens - units[last].tokens)
        start = last
        while start - 1 > first and units[start - 1].tokens <= room:
            start -= 1
            room -= units[start].tokens
        first = start
    return parts


def _units(text: str, tokens: int) -> Iterator[Unit]:
    """Yield the sentences of a text; one of more than `tokens` tokens in parts of whole words."""
    start = 0
    ends = [match.end() for match in BOUNDARY.finditer(text)]
    for end in [*ends, len(text)]:
        places = [match.start() for match in PIECE.finditer(text, start, end)]
        first = 0
        while first < len(places):
            last = min(first + tokens, len(places))
            if last < len(places):
                word = last
                while word > first and not text[places[word] - 1].isspace():
                    word -= 1
                last = word if word > first else last
            after = places[last] if last < len(places) else end
            yield Unit(start, after, last - first)
            start, first = after, last
        start = end
