"""Paired tests: against scipy, by hand, and where there is nothing to test."""

import numpy as np
import pytest

from retrodistill.errors import ConfigError
from retrodistill.evaluation.significance import compare, fisher, holm, paired_t


def test_holm_by_hand() -> None:
    """0.01 * 3, then 0.02 * 2 = 0.04, then max(0.04, 0.04 * 1)."""
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_p_values_agree_with_scipy() -> None:
    """A one-sided p, or one of unpaired samples."""
    from scipy.stats import permutation_test, ttest_rel

    rng = np.random.default_rng(0)
    a = rng.random(40)
    b = a + rng.normal(0.03, 0.1, 40)
    assert paired_t(a, b) == pytest.approx(ttest_rel(a, b).pvalue)
    peer = permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=9999, rng=rng
    )
    assert fisher(a, b) == pytest.approx(peer.pvalue, abs=0.02)


def test_fisher_by_hand() -> None:
    """Three gaps of one sign: 2 of the 8 sign assignments are as extreme, p = 1/4."""
    assert fisher(np.array([0.3, 0.2, 0.1]), np.zeros(3)) == pytest.approx(0.25, abs=0.02)


def test_each_pair_of_systems_is_compared_once() -> None:
    """A correction over the pairs of all metrics, or over the pairs with one system only."""
    rng = np.random.default_rng(1)
    values = {name: {f"q{i}": float(rng.random()) for i in range(9)} for name in ("a", "b", "c")}
    rows = compare("map", values)
    assert [(row.a, row.b) for row in rows] == [("a", "b"), ("a", "c"), ("b", "c")]
    means = {name: float(np.mean([*own.values()])) for name, own in values.items()}
    for row in rows:
        assert row.difference == pytest.approx(means[row.a] - means[row.b])
    assert [row.p_holm for row in rows] == pytest.approx(holm([row.p for row in rows]))


def test_an_unknown_test_is_refused() -> None:
    """A table that says one test and holds the p-values of another."""
    with pytest.raises(ConfigError, match="one of t, fisher, none"):
        compare("map", {"a": {"q": 0.1}, "b": {"q": 0.2}}, test="wilcoxon")


@pytest.mark.parametrize("test", ["t", "fisher"])
def test_equal_systems_do_not_differ(test: str) -> None:
    """NaN as the p of two equal systems."""
    values = {"a": {"q1": 0.5, "q2": 0.1}, "b": {"q1": 0.5, "q2": 0.1}}
    (row,) = compare("map", values, test=test)
    assert (row.p, row.p_holm, row.difference) == (1.0, 1.0, 0.0)
    assert compare("map", values, test="none") == []


def test_constant_gaps_and_single_queries_give_numbers() -> None:
    """A warning about precision loss where all queries improve by the same amount."""
    assert paired_t(np.array([0.2, 0.4]), np.array([0.1, 0.3])) < 0.05
    assert paired_t(np.array([0.2]), np.array([0.1])) == 1.0
