"""Words of texts, normalised for comparison, and their hashes.

Words are in lower case, NFKC, without punctuation. A script that puts no spaces between words is
one word to this.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.manifest import hash64


def words_of(text: str) -> list[str]:
    """Return the words of a text, in order, as they are compared."""
    return _word().findall(unicodedata.normalize("NFKC", text).casefold())


def word_hashes(text: str) -> NDArray[np.uint64]:
    """Return 64 bits for each distinct word of a text, sorted."""
    return np.sort(hash64(sorted(set(words_of(text)))))


def text_key(text: str) -> int:
    """Return 64 bits for the words of a text in order, independent of id and punctuation."""
    return int(hash64([" ".join(words_of(text))])[0])


def shingles(words: Sequence[str], width: int) -> set[str]:
    """Return the runs of `width` words; fewer words than that are one run."""
    runs = range(max(1, len(words) - width + 1))
    return {" ".join(words[start : start + width]) for start in runs} if words else set()


def jaccard(a: set[str], b: set[str]) -> float:
    """Return the share of what either has that both have; 0 if neither has any."""
    common = len(a & b)
    return common / (len(a) + len(b) - common) if common else 0.0


@cache
def _word() -> re.Pattern[str]:
    """Return the pattern of a word, with the marks on its letters, such as the vowels of Hindi."""
    marks = (c for c in map(chr, range(0x20000)) if unicodedata.category(c).startswith("M"))
    return re.compile(rf"\w[\w{''.join(marks)}]*")
