"""The set that is most like another: against all pairs, however the index finds it."""

import numpy as np
import pytest

from retrodistill.data.rankings import doubles
from retrodistill.data.rankings.doubles import Sets, most_alike


def made_sets(rng: np.random.Generator, number: int, vocabulary: int) -> list[set[int]]:
    """Return sets of up to 11 values, low ones in most of them and high ones in few."""
    sizes = rng.integers(0, 12, number)
    return [set((rng.pareto(1.0, size) * 3).astype(int) % vocabulary) for size in sizes]


def hashed(sets: list[set[int]]) -> Sets:
    return Sets.of(np.array(sorted(own), np.uint64) for own in sets)


@pytest.mark.parametrize("vocabulary", [8, 400])  # pairs are counted, or compared
@pytest.mark.parametrize("least", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("pairs", [1 << 22, 50])
def test_the_likest_is_that_of_all_pairs(
    least: float, vocabulary: int, pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A filter that misses a pair at the least similarity, or names a later one of two."""
    monkeypatch.setattr(doubles, "PAIRS", pairs)
    rng = np.random.default_rng(vocabulary)
    sets = made_sets(rng, 80, vocabulary)
    parts = [made_sets(rng, 50, vocabulary), [], [*sets[:9], *made_sets(rng, 50, vocabulary)]]
    similarity, places = most_alike(hashed(sets), map(hashed, parts), least=least)
    others = [other for part in parts for other in part]
    for own, likest, place in zip(sets, similarity, places, strict=True):
        shares = [len(own & other) / max(1, len(own | other)) for other in others]
        best = max(shares)
        expected = (best, shares.index(best)) if best > 0 and best >= least else (0, -1)
        assert (likest, place) == expected
