"""BM25 over the documents of a collection, by bm25s: as a first stage and as a teacher."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError
from retrodistill.base.types import RetrieverOptions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from retrodistill.data.datasets import Texts

K1, B = 1.5, 0.75


class Lexicon:
    """An inverted index of texts: English stems, BM25 in Lucene's form with k1 1.5 and b 0.75.

    Source: Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework"; the variants
    are compared in Lù 2024, arXiv:2407.03618, which describes bm25s.
    """

    def __init__(self, texts: "Iterable[str]") -> None:
        import bm25s

        self._index: Any = bm25s.BM25(k1=K1, b=B, method="lucene")
        tokens = _stems(list(texts))
        if not any(tokens):
            # bm25s cannot index texts without a single word: nothing will ever be found.
            self._index = None
        self.size = len(tokens)
        if self._index is not None:
            self._index.index(tokens, show_progress=False)

    @property
    def nbytes(self) -> int:
        """Bytes of the weights and of the words that they belong to."""
        if self._index is None:
            return 0
        arrays = sum(self._index.scores[name].nbytes for name in ("data", "indices", "indptr"))
        return int(arrays) + sum(len(word.encode()) for word in self._index.vocab_dict)

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
        words = _stems([query])[0]
        if self._index is None or not words:
            return np.zeros(self.size, np.float32)
        indexed = [word for word in words if word in self._index.vocab_dict]
        if not indexed:
            return np.zeros(self.size, np.float32)
        return np.asarray(self._index.get_scores(indexed), dtype=np.float32)


class BM25Retriever:
    """The documents of highest BM25 score, of those that share a word with the query."""

    fingerprint = "bm25"

    def __init__(self, argument: str, docs: "Texts", options: RetrieverOptions) -> None:
        if argument:
            raise ConfigError(f"retriever bm25 takes no argument, but got {argument!r}.")
        self._docs = docs

    @cached_property
    def _lexicon(self) -> Lexicon:
        return Lexicon(self._docs.full_texts())

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


def _stems(texts: Sequence[str]) -> list[list[str]]:
    import bm25s
    from Stemmer import Stemmer

    tokens: list[list[str]] = bm25s.tokenize(
        list(texts),
        stopwords="en",
        stemmer=Stemmer("english"),
        return_ids=False,
        show_progress=False,
    )
    return tokens
