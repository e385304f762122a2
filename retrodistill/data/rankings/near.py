"""Texts that nearly repeat an earlier one, by the Jaccard similarity of their words; exact."""

import math
from collections import Counter
from collections.abc import Sequence

from retrodistill.data.store.words import jaccard, words_of


def repeats(texts: Sequence[str], *, threshold: float) -> dict[int, int]:
    """Return the position of each text that repeats an earlier one -> that of the earlier.

    Two texts repeat each other if the share of distinct words that they have in common reaches
    the threshold. A text that repeats is not compared with again, so chains do not drift. Texts
    without words repeat nothing.

    Two sets of similarity t share one of the `n - ceil(t n) + 1` rarest words of each, so only
    texts with such a word in common are compared.

    Source: prefix filtering, Chaudhuri et al. 2006; Bayardo et al. 2007 (All-Pairs).
    """
    words = [set(words_of(text)) for text in texts]
    frequency = Counter(word for own in words for word in own)
    index: dict[str, list[int]] = {}
    doubles: dict[int, int] = {}
    for position, own in enumerate(words):
        rare_first = sorted(own, key=lambda word: (frequency[word], word))
        least = math.ceil(threshold * len(own) - 1e-9)
        prefix = rare_first[: len(own) - least + 1]
        candidates = sorted({earlier for word in prefix for earlier in index.get(word, ())})
        double = next((c for c in candidates if jaccard(words[c], own) >= threshold - 1e-9), None)
        if double is not None:
            doubles[position] = double
            continue
        for word in prefix:
            index.setdefault(word, []).append(position)
    return doubles
