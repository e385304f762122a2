"""Runs made one, and the temperature that a teacher needs: against plain Python and SciPy."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import entropy

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.data.rankings import (
    How,
    Norm,
    QueryWeights,
    agreement,
    average_scores,
    calibrated_temperature,
    combine,
    confidence,
    fuse_runs,
    perplexity,
    reciprocal_ranks,
)
from retrodistill.data.store.runs import Run

Scores = Mapping[str, Mapping[str, float]]
QUERIES, DOCS = ["q1", "q2", "q ü"], [f"d{number}" for number in range(8)]
whole_numbers = st.integers(-1000, 1000).map(float)
tables = st.dictionaries(
    st.sampled_from(QUERIES),
    st.dictionaries(st.sampled_from(DOCS), whole_numbers, min_size=1),
    min_size=1,
)
few = settings(max_examples=25, deadline=None)


@st.composite
def members(draw: st.DrawFn, *, low: int = 1, high: int = 3) -> list[Scores]:
    """Tables that share at least the pair (q1, d0)."""
    found = draw(st.lists(tables, min_size=low, max_size=high))
    shared = [draw(whole_numbers) for _ in found]
    return [
        {**table, "q1": {**table.get("q1", {}), "d0": score}}
        for table, score in zip(found, shared, strict=True)
    ]


def runs_of(members: Sequence[Scores]) -> list[Run]:
    return [Run.from_dict(scores) for scores in members]


def shared(members: Sequence[Scores], query: str) -> list[str]:
    """Documents of a query that every member scores."""
    lists = [set(scores.get(query, {})) for scores in members]
    return sorted(set.intersection(*lists))


def near(found: Scores, wanted: Scores) -> bool:
    return found.keys() == wanted.keys() and all(
        found[query] == pytest.approx(wanted[query], rel=1e-5, abs=1e-5) for query in wanted
    )


def plain(members: Sequence[Scores], how: str, shares: Sequence[float]) -> Scores:
    """The weighted mean, query by query, as one would write it down."""
    bounds = []
    for scores in members:
        every = [score for docs in scores.values() for score in docs.values()]
        bounds.append(np.percentile(every, (1, 99)))
    fused: dict[str, dict[str, float]] = {}
    for query in members[0]:
        docs = shared(members, query)
        rows = []
        for scores, (low, high) in zip(members, bounds, strict=True):
            row = np.array([scores[query][doc] for doc in docs])
            if how == "z" and len(docs):
                row = (row - row.mean()) / row.std() if np.ptp(row) else 0 * row
            if how == "percentiles":
                row = (np.clip(row, low, high) - low) / (high - low) if high > low else 0 * row
            rows.append(row)
        if docs:
            mean = np.average(rows, axis=0, weights=shares)
            fused[query] = dict(zip(docs, mean.tolist(), strict=True))
    return fused


@few
@given(members(), st.sampled_from(["mean", "z", "percentiles"]), st.data())
def test_means_are_those_of_plain_python(
    members: list[Scores], how: How, data: st.DataObject
) -> None:
    """A value that slips to the next document or query, and trains on noise without a word."""
    weight = st.floats(0.1, 10)
    weights = data.draw(st.lists(weight, min_size=len(members), max_size=len(members)))
    found = combine(runs_of(members), how, weights=weights).to_dict()
    assert near(found, plain(members, how, weights))
    if how == "percentiles":
        assert all(0 <= score <= 1 for docs in found.values() for score in docs.values())


@few
@given(st.lists(tables, min_size=1, max_size=4), st.sampled_from([60.0, 1.0, 0.0]))
def test_reciprocal_ranks_are_those_of_plain_python(members: list[Scores], k: float) -> None:
    """Ranks counted over all queries, ties broken otherwise than in the run, or a lost pair."""
    fused: dict[str, dict[str, float]] = {}
    for run in runs_of(members):
        for query, docs, _ in run.lists():
            scores = fused.setdefault(query, {})
            for rank, doc in enumerate(docs, start=1):
                scores[doc] = scores.get(doc, 0.0) + 1.0 / (k + rank)
    found = reciprocal_ranks(runs_of(members), k=k)
    assert found.fingerprint == Run.from_dict(fused).fingerprint


@few
@given(members(low=2), st.sampled_from(["mean", "z", "percentiles", "rrf"]), st.randoms())
def test_the_order_of_rows_does_not_count(members: list[Scores], how: How, random: Random) -> None:
    """A result that depends on which shard of a store was finished first."""
    shuffled = []
    for scores in members:
        rows = [(q, d, score) for q, docs in scores.items() for d, score in docs.items()]
        random.shuffle(rows)
        shuffled.append(Run.from_columns(*(list(column) for column in zip(*rows, strict=True))))
    found, wanted = combine(shuffled, how), combine(runs_of(members), how)
    assert near(found.to_dict(), wanted.to_dict())


@few
@given(members(low=2), st.integers(-50, 50), st.sampled_from([0.5, 2.0, 64.0]))
def test_z_scores_forget_scale_and_shift(members: list[Scores], shift: int, scale: float) -> None:
    """Logits that drown cosines."""
    moved = [
        {q: {d: scale * score + shift for d, score in docs.items()} for q, docs in table.items()}
        for table in members[:1]
    ]
    found = average_scores(runs_of([*moved, *members[1:]])).to_dict()
    assert near(found, average_scores(runs_of(members)).to_dict())


@few
@given(members(low=2, high=2), st.sampled_from(["mean", "z", "rrf"]))
def test_a_weight_of_zero_silences_a_member(members: list[Scores], how: How) -> None:
    """Weights in another order than the members."""
    first, second = runs_of(members)
    fused = combine([first, second], how, weights=(1, 0))
    order = {query: docs for query, docs, _ in first.lists()}
    for query, docs, _ in fused.lists():
        own = [doc for doc in order.get(query, []) if doc in set(docs)]
        assert docs[: len(own)] == own
        assert how == "rrf" or len(docs) == len(own)
    backwards = combine([second, first], how, weights=(0, 3))
    assert near(backwards.to_dict(), fused.to_dict())


def test_min_max_clips_to_global_percentiles_by_hand() -> None:
    """Percentiles of each query instead of the table: an easy query's worst becomes 0.

    The table holds 0 to 100, so that its 10th and 90th percentiles are 10 and 90.
    """
    scores = {f"q{n // 10}": {} for n in range(101)}
    for number in range(101):
        scores[f"q{number // 10}"][f"d{number}"] = float(number)
    found = combine([Run.from_dict(scores)], "percentiles", percentiles=(10, 90)).to_dict()
    assert found["q0"]["d3"] == 0
    assert found["q5"]["d50"] == 0.5
    assert found["q9"]["d98"] == 1
    flat = Run.from_dict({"q": {"a": 4.0, "b": 4.0}})
    assert combine([flat], "percentiles").to_dict() == {"q": {"b": 0.0, "a": 0.0}}


def frozen_runs() -> list[Run]:
    """Return three runs of three queries, of which each pair is in one, two or all."""
    runs = []
    for seed in (1, 2, 3):
        rng = np.random.default_rng(seed)
        table = {
            f"q{query}": {
                f"d{doc}": float(np.float32(rng.normal() * 3 + seed))
                for doc in sorted(rng.choice(8, size=5, replace=False).tolist())
            }
            for query in range(3)
        }
        runs.append(Run.from_dict(table))
    return runs


FROZEN = {
    "mean": ("3c56a7507a809c27", "c4f54cf76ccc19bb", "73280da485de69b6"),
    "z": ("5e860b1b70536b37", "14956fc84d20fa47", "145a9d928966afa7"),
    "percentiles": ("5d27f7f4ddfdcae7", "ac72998e9f301b2e", "4f6a375ae41a7143"),
    "rrf": ("dd67400ed5bc4f37", "7a1cad088173e5ae", "f001d7b21459487e"),
}
"""How -> fingerprints of version 0.1: by weights 3, 1, 2, then by confidence and by agreement."""


@pytest.mark.parametrize("how", FROZEN)
def test_stores_are_those_of_earlier_versions(how: How) -> None:
    """Other numbers under the same settings, so that no published store can be made again."""
    runs = frozen_runs()
    qrels = {"q0": {"d1": 1, "d4": 1}, "q1": {"d0": 2}, "q2": {"d7": 1, "d3": 0}}
    norm: Norm = "none" if how == "mean" else how  # type: ignore[assignment]
    for query_weights, fingerprint in zip(
        (None, confidence(runs), agreement(runs, qrels)), FROZEN[how], strict=True
    ):
        weights: dict[str, Any] = {"weights": (3, 1, 2), "query_weights": query_weights}
        combined = combine(runs, how, **weights)
        assert combined.fingerprint.startswith(fingerprint)
        if how == "rrf":
            fused = fuse_runs(runs, "rrf", **weights)
        else:
            fused = fuse_runs(runs, norm=norm, pairs="shared", **weights)
        assert fused.fingerprint == combined.fingerprint
    if how == "z":
        assert combine(runs, how).to_dict()["q2"] == {
            "d1": 0.8076053857803345,
            "d7": -0.14977452158927917,
            "d0": -0.6578308343887329,
        }


def test_percentiles_are_those_of_the_whole_table() -> None:
    """Percentiles of the pairs that are kept, or of each list, under the table's name."""
    one = Run.from_dict({"q": {"a": 0.0, "b": 50.0}, "r": {"a": 100.0}})
    other = Run.from_dict({"q": {"b": 1.0, "c": 0.0}})
    fused = fuse_runs([one, other], norm="percentiles", pairs="shared").to_dict()
    assert fused == {"q": {"b": 0.75}}
    fused = fuse_runs([one, other], norm="percentiles").to_dict()["q"]
    assert fused == pytest.approx({"b": 0.75, "a": 0.0, "c": 0.0})


def test_equal_scores_add_nothing() -> None:
    """Rounding of the mean of 0.1, 0.1, 0.1 that is divided by itself: z-scores of one."""
    flat = Run.from_dict({"q": {"a": 0.1, "b": 0.1, "c": 0.1}})
    lively = Run.from_dict({"q": {"a": 1.0, "b": 2.0, "c": 3.0}})
    assert average_scores([flat]).to_dict()["q"] == {"a": 0.0, "b": 0.0, "c": 0.0}
    half = average_scores([flat, lively]).to_dict()["q"]
    assert half["c"] == pytest.approx(1.5**0.5 / 2)


def test_dropped_pairs_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A teacher that failed on half of the candidates, and an ensemble that hides it."""
    one = Run.from_dict({"q": {"a": 1.0, "b": 2.0}, "r": {"a": 1.0}})
    other = Run.from_dict({"q": {"b": 1.0, "c": 2.0, "d": 3.0}})
    assert combine([one, other], "mean").to_dict() == {"q": {"b": 1.5}}
    assert "4 of 5 pairs are dropped" in capsys.readouterr().err
    assert len(combine([one, other], "rrf")) == 5
    assert not capsys.readouterr().err


def test_weights_of_queries_by_hand() -> None:
    """Weights of one query used for another, or lost where all of them are 0."""
    one = Run.from_dict({"q": {"a": 4.0}, "r": {"a": 4.0}, "s": {"a": 4.0}})
    other = Run.from_dict({"q": {"a": 8.0}, "r": {"a": 8.0}, "s": {"a": 8.0}})
    own = QueryWeights(pa.array(["s", "x", "q", "r"]), np.array([[0, 1, 3, 1], [0, 1, 1, 1.0]]))
    found = combine([one, other], "mean", query_weights=own).to_dict()
    assert found == {"q": {"a": 5.0}, "r": {"a": 6.0}, "s": {"a": 6.0}}
    found = combine([one, other], "mean", weights=(1, 3), query_weights=own).to_dict()
    assert found == {"q": {"a": 6.0}, "r": {"a": 7.0}, "s": {"a": 7.0}}
    found = combine([one, other], "rrf", query_weights=own).to_dict()
    assert found["q"]["a"] == pytest.approx(2 / 61)


def test_confidence_by_hand() -> None:
    """A teacher that cannot tell candidates apart and is heard as loud as one that can.

    Two candidates have z-scores 1 and -1, whatever their scores: p is 0.8808 and 0.1192.
    """
    one = Run.from_dict({"q": {"a": 90.0, "b": 10.0}, "r": {"a": 0.1, "b": 0.1, "c": 0.1}})
    other = Run.from_dict({"s": {"a": 1.0}, "q": {"a": 0.2, "b": 0.1}})
    weights = confidence([one, other])
    assert weights.query_ids.to_pylist() == ["q", "r", "s"]
    certain = 1 - entropy([0.8807971, 0.1192029]) / np.log(2)
    np.testing.assert_allclose(weights.values, [[certain, 0, 0], [certain, 0, 0]], atol=1e-6)
    outlier = Run.from_dict({"q": {f"d{n}": float(n == 0) for n in range(9)}})
    spread = Run.from_dict({"q": {f"d{n}": float(n) for n in range(9)}})
    values = confidence([outlier, spread]).values[:, 0]
    assert values[0] > values[1]


def test_agreement_by_hand() -> None:
    """Reciprocal ranks of documents that are judged not relevant, or for another query."""
    one = Run.from_dict({"q": {"a": 3.0, "b": 2.0, "c": 1.0}, "r": {"a": 1.0}})
    other = Run.from_dict({"q": {"c": 3.0, "b": 2.0}, "r": {"b": 1.0, "c": 0.5}})
    qrels = {"q": {"b": 2, "a": 0, "c": 1, "z": 1}, "r": {"c": 1, "a": -1}, "absent": {"a": 1}}
    weights = agreement([one, other], qrels)
    assert weights.query_ids.to_pylist() == ["q", "r"]
    np.testing.assert_array_equal(weights.values, [[1 / 2, 0], [1, 1 / 2]])
    assert not agreement([one], {}).values.any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"how": "median"}, "how must be one of mean, z, percentiles, rrf"),
        ({"weights": (1,)}, "2 runs need as many weights"),
        ({"weights": (2, -1)}, "none negative"),
        ({"weights": (0, 0)}, "not all 0"),
        ({"weights": (1, float("nan"))}, "weights"),
        ({"percentiles": (99, 1)}, "lower and a higher"),
        ({"k": -1.0}, "k must be 0"),
        ({"query_weights": QueryWeights(pa.array(["q"]), np.ones((3, 1)))}, r"wanted \(2, 1\)"),
        ({"query_weights": QueryWeights(pa.array(["q"]), -np.ones((2, 1)))}, "not negative"),
    ],
)
def test_settings_without_meaning_are_explained(settings: dict[str, object], message: str) -> None:
    """An ensemble of other weights than were asked for."""
    run = Run.from_dict({"q": {"a": 1.0}})
    with pytest.raises(ConfigError, match=message):
        combine([run, run], **settings)


def test_tables_without_a_common_ground_are_explained() -> None:
    """An empty table as the teacher of a student."""
    one, other = Run.from_dict({"q": {"a": 1.0}}), Run.from_dict({"q": {"b": 1.0}})
    with pytest.raises(ConfigError, match="at least one"):
        combine([])
    for how in ("mean", "z", "percentiles"):
        with pytest.raises(DataError, match="share no"):
            combine([one, other], how)
        with pytest.raises(DataError, match="share no"):
            combine([one, Run.from_dict({})], how)
    assert len(reciprocal_ranks([Run.from_dict({}), Run.from_dict({})])) == 0
    with pytest.raises(DataError, match="1 queries have no weights, 'q' for one"):
        combine([one], query_weights=confidence([Run.from_dict({"r": {"a": 1.0}})]))


LISTS = st.lists(
    st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=12), min_size=1, max_size=9
)


def run_of_lists(lists: Sequence[Sequence[float]]) -> Run:
    return Run.from_dict(
        {f"q{n}": {f"d{m}": score for m, score in enumerate(row)} for n, row in enumerate(lists)}
    )


@few
@given(LISTS, st.floats(0.01, 100), st.integers(1, 12))
def test_perplexity_is_scipys(lists: list[list[float]], temperature: float, first: int) -> None:
    """Entropy in bits, over all candidates, or with the temperature as a factor."""
    found = perplexity(run_of_lists(lists), temperature, first=first)
    best = [sorted(row, reverse=True)[:first] for row in lists]
    wanted = [np.exp(entropy(softmax(np.array(row) / temperature))) for row in best]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@few
@given(LISTS, st.floats(0.02, 0.98), st.sampled_from([None, 3, 8]))
def test_a_temperature_reaches_its_target(
    lists: list[list[float]], share: float, first: int | None
) -> None:
    """A temperature that was never checked, or one for other lists than the student sees."""
    run = run_of_lists(lists)
    best = [sorted(row, reverse=True)[:first] for row in lists]
    lowest = float(np.median([row.count(row[0]) for row in best]))
    highest = float(np.median([len(row) for row in best]))
    target = lowest + share * (highest - lowest)
    if not lowest < target < highest:
        with pytest.raises(DataError, match="no temperature gives"):
            calibrated_temperature(run, target, first=first)
        return
    found = calibrated_temperature(run, target, first=first)
    reached = perplexity(run, found.temperature, first=first)
    assert np.median(reached) == pytest.approx(target, rel=0.01)
    assert found.perplexity == pytest.approx(np.median(reached))
    assert found.quartiles == pytest.approx(np.quantile(reached, (0.25, 0.75)))
    assert found.constant == sum(len(set(row)) == 1 for row in best)
    assert found.short == sum(len(row) <= target for row in best)


def test_a_temperature_by_hand() -> None:
    """A scale that is taken for its inverse: scores ten times as large need ten times as much.

    Scores ln 3 and 0 give p = 3/4 and 1/4 at temperature 1: perplexity 4 / 3 ** 0.75 = 1.7548.
    """
    run = Run.from_dict({"q": {"a": 10 * np.log(3), "b": 0.0}})
    target = 4 / 3**0.75
    assert perplexity(run, 10.0) == pytest.approx([target])
    found = calibrated_temperature(run, target)
    assert found.temperature == pytest.approx(10, rel=1e-3)
    assert (found.lists, found.constant, found.short) == (1, 0, 0)


def test_extreme_scores_have_a_temperature() -> None:
    """Overflow to infinity, then NaN, where a teacher's numbers are huge or tiny."""
    for scale in (1e-30, 1e30):
        run = Run.from_dict({"q": {f"d{n}": float(np.float32(scale * n)) for n in range(10)}})
        found = calibrated_temperature(run, 4.0)
        assert found.perplexity == pytest.approx(4, rel=1e-3)
        assert perplexity(run, 1e-200) == pytest.approx([1.0])
        assert perplexity(run, 1e200) == pytest.approx([10.0])


def test_targets_out_of_reach_are_explained() -> None:
    """A search that ends at its border and calls it a temperature."""
    flat = Run.from_dict({"q": {"a": 1.0, "b": 1.0, "c": 1.0}})
    with pytest.raises(DataError, match="1 lists are constant"):
        calibrated_temperature(flat, 2.0)
    short = Run.from_dict({"q": {"a": 1.0, "b": 0.0}})
    with pytest.raises(DataError, match="below 2 .* score more candidates"):
        calibrated_temperature(short, 2.0)
    with pytest.raises(DataError, match="0 lists"):
        calibrated_temperature(Run.from_dict({}), 2.0)
    with pytest.raises(DataError, match="median perplexity of 1:"):
        calibrated_temperature(short, 1.0)
    with pytest.raises(ConfigError, match="positive number"):
        perplexity(short, 0.0)
    with pytest.raises(ConfigError, match="first must be"):
        perplexity(short, 1.0, first=0)
