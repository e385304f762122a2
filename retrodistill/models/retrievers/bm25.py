"""BM25 over the documents of a collection: as a first stage and as a teacher.

Words and stems are those of bm25s; postings are arrays, made batch by batch, so that neither the
texts nor their words are in memory together.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError
from retrodistill.base.types import RetrieverOptions

if TYPE_CHECKING:
    from retrodistill.data.datasets import Texts

K1, B = 1.5, 0.75
BATCH_TEXTS, BATCH_CHARACTERS = 8_192, 16_000_000
"""Texts and characters whose words are in memory together."""

Numbers: TypeAlias = NDArray[np.int32]


@dataclass(frozen=True, eq=False, slots=True)
class _Counts:
    """How often stems occur in the texts of a batch, sorted by stem, then by text."""

    stems: Numbers
    rows: Numbers
    times: NDArray[np.float32]


class Lexicon:
    """An inverted index of texts: English stems, BM25 in Lucene's form with k1 1.5 and b 0.75.

    Source: Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework"; the variants
    are compared in Lù 2024, arXiv:2407.03618, which describes bm25s.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._vocabulary: dict[str, int] = {}
        batches, lengths = [], [np.empty(0, np.int32)]
        for batch in _batches(texts):
            counts, batch_lengths = self._counted(batch, sum(map(len, lengths)))
            batches.append(counts)
            lengths.append(batch_lengths)
        self._index(batches, np.concatenate(lengths))

    def _counted(self, texts: list[str], first: int) -> tuple[_Counts, Numbers]:
        """Return the counts of some texts, whose first row is `first`, and their lengths."""
        texts_stems, local = _stems(texts)
        known = self._vocabulary
        numbers = np.array([known.setdefault(stem, len(known)) for stem in local], np.int64)
        lengths = np.array([len(stems) for stems in texts_stems], np.int32)
        flat = np.fromiter((stem for stems in texts_stems for stem in stems), np.int64)
        rows = np.repeat(np.arange(len(texts)), lengths)
        pairs, times = np.unique(numbers[flat] * len(texts) + rows, return_counts=True)
        stems, pair_rows = np.divmod(pairs, len(texts))
        counts = _Counts(
            stems.astype(np.int32),
            (first + pair_rows).astype(np.int32),
            times.astype(np.float32),
        )
        return counts, lengths

    def _index(self, batches: list[_Counts], lengths: Numbers) -> None:
        """Turn counts into postings: the texts of each stem, and its weight in each of them."""
        size, width = len(lengths), len(self._vocabulary)
        frequencies = np.zeros(width, np.int64)
        for counts in batches:
            frequencies += np.bincount(counts.stems, minlength=width)
        idf = np.log(1 + (size - frequencies + 0.5) / (frequencies + 0.5)).astype(np.float32)
        mean = lengths.mean() if frequencies.any() else 1.0
        norms = K1 * ((1 - B) + B * lengths / mean)
        self._bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(frequencies)])
        self._rows = np.empty(self._bounds[-1], np.int32)
        self._weights = np.empty(self._bounds[-1], np.float32)
        free = self._bounds[:-1].copy()  # the next place of each stem
        batches.reverse()
        while batches:  # a batch is dropped as soon as it is placed
            counts = batches.pop()
            own = np.bincount(counts.stems, minlength=width)
            places = np.arange(len(counts.stems)) + np.repeat(free - (np.cumsum(own) - own), own)
            self._rows[places] = counts.rows
            saturated = counts.times / (norms[counts.rows] + counts.times)
            self._weights[places] = idf[counts.stems] * saturated
            free += own
        self.size = size

    @property
    def nbytes(self) -> int:
        """Bytes of the weights and of the words that they belong to."""
        arrays = self._weights.nbytes + self._rows.nbytes + self._bounds.nbytes
        return arrays + sum(len(word.encode()) for word in self._vocabulary)

    def top(self, query: str, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return rows and scores of the best texts that share a word with the query."""
        scores = self.scores(query)
        k = min(k, self.size)
        rows = np.argpartition(-scores, k - 1)[:k] if k else np.zeros(0, np.int64)
        rows = rows[scores[rows] > 0]
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        return rows.astype(np.int64), scores[rows]

    def scores(self, query: str) -> NDArray[np.float32]:
        """Return the score of every text, 0 where it shares no word with the query."""
        scores = np.zeros(self.size, np.float32)
        (numbers,), stems = _stems([query])
        for stem in map(stems.__getitem__, numbers):
            if (number := self._vocabulary.get(stem)) is not None:
                postings = slice(self._bounds[number], self._bounds[number + 1])
                scores[self._rows[postings]] += self._weights[postings]
        return scores


class BM25Retriever:
    """The documents of highest BM25 score, of those that share a word with the query."""

    fingerprint = "bm25"

    def __init__(self, argument: str, docs: "Texts", options: RetrieverOptions) -> None:
        if argument:
            raise ConfigError(f"retriever bm25 takes no argument, but got {argument!r}.")
        self._docs = docs

    @cached_property
    def _lexicon(self) -> Lexicon:
        return Lexicon(doc.full_text for doc in self._docs)

    @property
    def nbytes(self) -> int:
        """Bytes of the inverted index."""
        return self._lexicon.nbytes

    def top(
        self, queries: Sequence[str], k: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield rows and scores of each query's best documents."""
        for query in queries:
            yield self._lexicon.top(query, k)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if len(batch) == BATCH_TEXTS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _stems(texts: list[str]) -> tuple[list[list[int]], list[str]]:
    """Return the numbers of each text's stems, in order, and the stem of each number."""
    import bm25s
    from Stemmer import Stemmer

    tokens = bm25s.tokenize(
        texts, stopwords="en", stemmer=Stemmer("english"), return_ids=True, show_progress=False
    )
    stems = sorted(tokens.vocab, key=tokens.vocab.__getitem__)
    return tokens.ids, stems
