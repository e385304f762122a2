"""Near repeats among texts."""

import random
import time

import pytest

from retrodistill.data.rankings.near import repeats
from retrodistill.data.store.words import jaccard, words_of


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.8, 1.0])
def test_as_by_comparing_all(threshold: float) -> None:
    """Prefixes that are one word too short miss pairs at the threshold itself."""
    rng = random.Random(0)
    words = [f"w{number}" for number in range(14)]
    texts = [" ".join(rng.choices(words, k=rng.randint(0, 7))) for _ in range(400)]
    sets = [{*words_of(text)} for text in texts]
    expected: dict[int, int] = {}
    for place, own in enumerate(sets):
        for earlier in range(place):
            if earlier not in expected and own and jaccard(sets[earlier], own) >= threshold - 1e-9:
                expected[place] = earlier
                break
    assert repeats(texts, threshold=threshold) == expected
    assert expected


def test_case_and_punctuation_are_no_difference() -> None:
    assert repeats(["Where is it?", "where IS it", "who is it"], threshold=0.8) == {1: 0}


def test_queries_of_few_words_are_not_all_compared() -> None:
    """Work that grows with the square of the queries: three minutes for 100,000 of them."""
    rng = random.Random(0)
    words = [f"w{number}" for number in range(60)]
    texts = [" ".join(rng.sample(words, 8)) for _ in range(30_000)]
    began = time.process_time()
    assert repeats([*texts, texts[7]], threshold=0.8) == {30_000: 7}
    assert time.process_time() - began < 20  # 1 s alone on a core; by single words, 60 s
