"""Texts that nearly repeat an earlier one, by the Jaccard similarity of their words; exact."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations
from math import ceil, comb

from retrodistill.data.store.words import jaccard, words_of

KEYS, WORDS = 30, 4
"""Keys of a text in the index, and words of a key, at most; keys of one word may be more."""


def repeats(texts: Sequence[str], *, threshold: float) -> dict[int, int]:
    """Return the position of each text that repeats an earlier one -> that of the earlier.

    Two texts repeat each other if the share of distinct words that they have in common reaches
    the threshold. A text that repeats is not compared with again, so chains do not drift. Texts
    without words repeat nothing.

    Two sets of similarity t, the larger one of n values, have `ceil(t n)` in common, and the `s`
    rarest of these are among the `n - ceil(t n) + s` rarest of each. So only texts with `s` rare
    words in common are compared: the more words, the fewer texts.

    Source: prefix filtering, Chaudhuri et al. 2006; Bayardo et al. 2007 (All-Pairs); with several
    words, Wang et al. 2012 (AdaptJoin).
    """
    names: dict[str, str] = {}  # one object for a word of many texts
    words = [tuple({names.setdefault(word, word) for word in words_of(text)}) for text in texts]
    frequency = Counter(word for own in words for word in own)
    index: dict[int, list[int]] = {}
    doubles: dict[int, int] = {}
    for position, own in enumerate(map(set, words)):
        rare_first = sorted(own, key=lambda word: (frequency[word], word))
        keys = [*_keys(rare_first, threshold)]
        candidates = sorted({earlier for key in keys for earlier in index.get(key, ())})
        likeness = ((c, jaccard(set(words[c]), own)) for c in candidates)
        double = next((c for c, share in likeness if share >= threshold - 1e-9), None)
        if double is not None:
            doubles[position] = double
            continue
        for key in keys:
            index.setdefault(key, []).append(position)
    return doubles


def _keys(rare_first: Sequence[str], threshold: float) -> Iterator[int]:
    """Yield hashes of rare words, of which two texts that repeat each other share one."""
    for size, among in _combined(len(rare_first), threshold):
        yield from map(hash, combinations(rare_first[:among], size))


@cache
def _combined(count: int, threshold: float) -> list[tuple[int, int]]:
    """Return how many words make a key, and how many of the rarest they are among.

    Each of the larger sets that one of `count` words may repeat has a size of its own.
    """
    spared = count - _least(count, threshold)
    larger = range(count, int(count / threshold + 1e-9) + 1)
    return [(size, spared + size) for size in {_key_size(each, threshold) for each in larger}]


@cache
def _key_size(count: int, threshold: float) -> int:
    """Return how many words make a key of a set that is the larger of two: few enough for KEYS."""
    least = _least(count, threshold)
    sizes = range(2, min(WORDS, least) + 1)
    return max((s for s in sizes if comb(count - least + s, s) <= KEYS), default=1)


def _least(count: int, threshold: float) -> int:
    """Return how many words a set shares, at least, with one that it repeats."""
    return ceil(threshold * count - 1e-9)
