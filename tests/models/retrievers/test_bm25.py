"""BM25: the weights of bm25s, without its memory."""

from collections.abc import Iterator

import numpy as np
import pytest
from fakes.memory import peak_bytes

from retrodistill.models.retrievers import bm25
from retrodistill.models.retrievers.bm25 import Lexicon


def made_texts(count: int, words: int = 55) -> Iterator[str]:
    """Yield texts of skewed words, some of them empty."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        numbers = (rng.pareto(1.1, int(rng.integers(0, 2 * words))) * 10).astype(int) % 3_000
        yield " ".join(f"word{number}s" for number in numbers)


def test_scores_are_those_of_bm25s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another formula, or rows of another batch: lists that look right, from other documents."""
    import bm25s
    from Stemmer import Stemmer

    monkeypatch.setattr(bm25, "BATCH_TEXTS", 70)
    texts = [*made_texts(300), "the words, running 3 times; WORD1S words"]
    lexicon = Lexicon(iter(texts))

    def stems(of: list[str]) -> list[list[str]]:
        stemmer = Stemmer("english")
        stems: list[list[str]] = bm25s.tokenize(
            of, stopwords="en", stemmer=stemmer, return_ids=False, show_progress=False
        )
        return stems

    peer = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
    peer.index(stems(texts), show_progress=False)
    for query in (*texts[:30], "word1s runs word1s unheard", "times"):
        known = [stem for stem in stems([query])[0] if stem in peer.vocab_dict]
        expected = peer.get_scores(known) if known else np.zeros(len(texts), np.float32)
        np.testing.assert_array_equal(lexicon.scores(query), expected)


@pytest.mark.parametrize("texts", [[], [""], ["", "of the"]])
def test_texts_without_a_word(texts: list[str]) -> None:
    """A division by a mean length of 0, or a document that every query finds."""
    lexicon = Lexicon(texts)
    assert not lexicon.scores("of a lung").any()
    assert len(lexicon.top("lung", 3)[0]) == 0


def test_memory_is_that_of_postings(monkeypatch: pytest.MonkeyPatch) -> None:
    """All texts and words as Python's objects: 4.5 kB a document, 40 GB for MS MARCO."""
    monkeypatch.setattr(bm25, "BATCH_TEXTS", 250)
    small, large = (peak_bytes(lambda n=n: Lexicon(made_texts(n))) for n in (1_000, 3_000))
    assert (large - small) / 2_000 < 1_000
