"""Paired tests: against scipy, by hand, and where there is nothing to test."""

import numpy as np
import pytest

from retrodistill.base.config import EvaluationSettings
from retrodistill.base.errors import ConfigError
from retrodistill.data.store.runs import Run
from retrodistill.stages.evaluation import evaluate_runs
from retrodistill.stages.evaluation.significance import (
    RESAMPLES,
    compare,
    fisher,
    holm,
    interval,
    paired_t,
    resampled_means,
    tukey,
)


def systems(*names: str, queries: int = 30, seed: int = 2) -> dict[str, dict[str, float]]:
    """Return values of systems, each a little better than the one before."""
    rng = np.random.default_rng(seed)
    hard = rng.random(queries)
    return {
        name: {f"q{i}": float(hard[i] + 0.05 * place + rng.normal(0, 0.1)) for i in range(queries)}
        for place, name in enumerate(names)
    }


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
    assert [row.p_corrected for row in rows] == pytest.approx(holm([row.p for row in rows]))


def test_an_unknown_test_is_refused() -> None:
    """A table that says one test and holds the p-values of another."""
    values = {"a": {"q": 0.1}, "b": {"q": 0.2}}
    with pytest.raises(ConfigError, match="one of t, fisher, none"):
        compare("map", values, test="wilcoxon")
    with pytest.raises(ConfigError, match="one of holm, tukey, none"):
        compare("map", values, correction="bonferroni")
    with pytest.raises(ConfigError, match="tie must be 0 or more"):
        compare("map", values, tie=float("nan"))


@pytest.mark.parametrize("test", ["t", "fisher"])
def test_equal_systems_do_not_differ(test: str) -> None:
    """NaN as the p of two equal systems."""
    values = {"a": {"q1": 0.5, "q2": 0.1}, "b": {"q1": 0.5, "q2": 0.1}}
    (row,) = compare("map", values, test=test)
    assert (row.p, row.p_corrected, row.difference) == (1.0, 1.0, 0.0)
    assert compare("map", values, test="none") == []


def test_equal_gaps_of_few_queries_are_no_certainty() -> None:
    """p = 0 for two queries that gain the same; a sign test of five says 1 in 16 at least."""
    for gaps in ([0.5] * 5, [0.5, 0.5, 0.5, 0.5, 0.5001]):
        assert paired_t(np.array(gaps), np.zeros(5)) == 2.0**-4
    assert paired_t(np.array([0.2, 0.4]), np.array([0.1, 0.3])) == 0.5
    assert paired_t(np.array([0.2]), np.array([0.1])) == 1.0
    values = {"a": dict.fromkeys("pqrst", 0.7), "b": dict.fromkeys("pqrst", 0.2)}
    (row,) = compare("map", values)
    assert row.p == row.p_corrected == 2.0**-4
    assert paired_t(np.full(2000, 0.5), np.zeros(2000)) < 1e-300


def test_tukey_by_hand() -> None:
    """A range over pairs, or rows that are shuffled together.

    One query, values 0, 1, 3: the range is 3 in every order, so only 0 against 3 reaches it, and
    every pair is reached. Two queries, (0, 1) and (0, 1): half of the shuffles are as extreme.
    """
    assert tukey(np.array([[0.0, 1.0, 3.0]]), [(0, 1), (0, 2)]) == [1.0, 1.0]
    (p,) = tukey(np.array([[0.0, 1.0], [0.0, 1.0]]), [(1, 0)])
    assert p == pytest.approx(0.5, abs=0.02)


def test_tukey_of_two_systems_is_fishers_test() -> None:
    """A one-sided range, or means of other queries."""
    a, b = (np.array([*own.values()]) for own in systems("a", "b", queries=25).values())
    (p,) = tukey(np.stack([a, b], axis=1), [(0, 1)])
    assert 0.001 < p < 0.5
    assert p == pytest.approx(fisher(a, b), abs=0.015)


def test_tukey_agrees_with_a_loop() -> None:
    """A shuffle in blocks that is one of systems for all queries at once."""
    values = np.stack([[*own.values()] for own in systems("a", "b", "c", queries=12).values()], 1)
    rng = np.random.default_rng(5)
    ranges = []
    for _ in range(4000):
        means = np.stack([rng.permutation(row) for row in values]).mean(0)
        ranges.append(means.max() - means.min())
    pairs = [(0, 1), (0, 2), (1, 2)]
    for (a, b), p in zip(pairs, tukey(values, pairs), strict=True):
        gap = abs(values[:, a].mean() - values[:, b].mean())
        assert p == pytest.approx(np.mean(np.array(ranges) >= gap), abs=0.03)


def test_the_correction_is_the_one_that_was_asked_for() -> None:
    """A column called Tukey that holds Holm's values, or a seed that changes nothing."""
    values = systems("a", "b", "c")
    rows = {name: compare("map", values, correction=name) for name in ("holm", "tukey", "none")}
    for name, found in rows.items():
        assert {row.correction for row in found} == {name}
        assert [row.p for row in found] == [row.p for row in rows["none"]]
    assert [row.p_corrected for row in rows["holm"]] == holm([row.p for row in rows["holm"]])
    assert [row.p_corrected for row in rows["none"]] == [row.p for row in rows["none"]]
    table = np.stack([[*own.values()] for own in values.values()], 1)
    wanted = tukey(table, [(0, 1), (0, 2), (1, 2)], seed=3)
    found = compare("map", values, correction="tukey", seed=3)
    assert [row.p_corrected for row in found] == wanted != tukey(table, [(0, 1), (0, 2), (1, 2)])


def test_intervals_agree_with_scipy() -> None:
    """An interval of another confidence, or of systems that are resampled apart."""
    from scipy.stats import bootstrap

    values = systems("a", "b", queries=60)
    means = resampled_means(values)
    assert {len(own) for own in means.values()} == {RESAMPLES}
    a, b = (np.array([*own.values()]) for own in values.values())
    (row,) = compare("map", values)
    for sample, found in ((a, interval(means["a"])), (a - b, row.interval)):
        peer = bootstrap(
            (sample,),
            np.mean,
            method="percentile",
            n_resamples=9999,
            rng=np.random.default_rng(1),
        ).confidence_interval
        assert found == pytest.approx((peer.low, peer.high), abs=0.12 * (peer.high - peer.low))
    wide = interval(means["a"])[1] - interval(means["a"])[0]
    assert row.interval[1] - row.interval[0] < wide  # paired: the queries' own spread is gone
    assert resampled_means(values, seed=1)["a"].tolist() != means["a"].tolist()
    assert resampled_means(values)["a"].tolist() == means["a"].tolist()


def test_wins_ties_and_losses_by_hand() -> None:
    """Counts of `b`, or a threshold that is one of shares."""
    values = {
        "a": {"1": 0.5, "2": 0.5, "3": 0.5, "4": 0.5},
        "b": {"1": 0.4, "2": 0.5, "3": 0.52, "4": 0.9},
    }
    (row,) = compare("map", values)
    assert (row.wins, row.ties, row.losses) == (1, 1, 2)
    (row,) = compare("map", values, tie=0.05)
    assert (row.wins, row.ties, row.losses) == (1, 2, 1)


def test_a_baseline_is_compared_with_all_others_only() -> None:
    """A correction for pairs that nobody asked for, or a sign that is the baseline's."""
    values = systems("a", "b", "c", "d")
    rows = compare("map", values, baseline="b")
    assert [(row.a, row.b) for row in rows] == [("a", "b"), ("c", "b"), ("d", "b")]
    assert rows[0].difference < 0 < rows[1].difference
    assert [row.p_corrected for row in rows] == holm([row.p for row in rows])
    assert compare("map", {"a": values["a"]}, baseline="a") == []
    with pytest.raises(ConfigError, match=r"no system 'bb'.* Did you mean 'b'\?"):
        compare("map", values, baseline="bb")
    run = Run.from_dict({"q": {"a": 1.0}})
    with pytest.raises(ConfigError, match="no system 'two'"):
        evaluate_runs(
            {"q": {"a": 1}}, {"one": run}, EvaluationSettings(baseline="two", test="none")
        )


def test_the_json_says_how_it_was_tested() -> None:
    """Numbers that nobody can repeat: no seed, no threshold, no confidence."""
    runs = {
        "one": Run.from_dict({"q1": {"a": 1.0}, "q2": {"b": 1.0}}),
        "two": Run.from_dict({"q1": {"a": 1.0}, "q2": {"a": 2.0, "b": 1.0}}),
    }
    qrels = {"q1": {"a": 1}, "q2": {"b": 1}}
    found = evaluate_runs(qrels, runs, EvaluationSettings(metrics="mrr", tie=0.1, seed=7)).to_dict()
    assert found["settings"] == {
        "queries": 2,
        "ignore_identical_ids": False,
        "judged_only": False,
        "test": "t",
        "correction": "holm",
        "baseline": None,
        "tie": 0.1,
        "confidence": 0.95,
        "seed": 7,
    }
    (row,) = found["tests"]
    assert (row["wins"], row["ties"], row["losses"]) == (1, 1, 0)
    assert row["interval"] == [0.0, 0.5]
    one, two = found["systems"]
    assert one["intervals"] == {"mrr": [1.0, 1.0]}
    assert two["intervals"] == {"mrr": [0.5, 1.0]}
    assert (two["judged"], two["identical_ids"]) == ({"judged": 0.75}, 0)
