"""Several runs as one, and weights found on judged queries: against plain Python."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.data.rankings import (
    Fusion,
    Method,
    Norm,
    fuse_runs,
    reciprocal_ranks,
    tune_fusion,
)
from retrodistill.data.rankings.metrics import evaluate, parse_metric
from retrodistill.data.rankings.tuning import POINTS, simplex, transfers
from retrodistill.data.store.runs import Run

Scores = Mapping[str, Mapping[str, float]]
tables = st.dictionaries(
    st.sampled_from(["q1", "q2", "q3"]),
    st.dictionaries(
        st.sampled_from([f"d{number}" for number in range(8)]),
        st.integers(-50, 50).map(float),
        min_size=1,
    ),
    min_size=1,
)
few = settings(max_examples=40, deadline=None)
NORMS: tuple[Norm, ...] = ("none", "min-max", "z", "theoretical")


def runs_of(*tables: Scores) -> list[Run]:
    return [Run.from_dict(table) for table in tables]


def normal(scores: Mapping[str, float], norm: Norm) -> tuple[dict[str, float], float]:
    """Return one list's comparable scores, and what a document that it lacks counts."""
    values = np.array(list(scores.values()))
    low, high = values.min(), values.max()
    if norm == "min-max":
        values = (values - low) / (high - low) if high > low else np.ones(len(values))
    if norm == "z":
        values = (values - values.mean()) / values.std() if high > low else 0 * values
    if norm == "theoretical":
        values = (values + 50) / (high + 50) if high > -50 else 0 * values
    lowest = 0.0 if norm == "min-max" else float(values.min())
    return dict(zip(scores, values.tolist(), strict=True)), lowest


def plain(members: Sequence[Scores], method: str, norm: Norm, shares: Sequence[float]) -> Scores:
    """Fusion, query by query, as one would write it down."""
    fused: dict[str, dict[str, float]] = {}
    for query in {query: None for member in members for query in member}:
        lists = [
            (share / sum(shares), member[query], *normal(member[query], norm))
            for member, share in zip(members, shares, strict=True)
            if query in member
        ]
        for doc in {doc for _, raw, _, _ in lists for doc in raw}:
            values = [share * scores.get(doc, lowest) for share, _, scores, lowest in lists]
            held = sum(doc in raw for _, raw, _, _ in lists)
            total = max(values) if method == "max" else sum(values)
            fused.setdefault(query, {})[doc] = total * (held if method == "mnz" else 1)
    return fused


@few
@given(st.lists(tables, min_size=1, max_size=3), st.sampled_from(NORMS), st.data())
def test_fusion_is_that_of_plain_python(
    members: list[Scores], norm: Norm, data: st.DataObject
) -> None:
    """A score that slips to another query, or an absent document that counts as a good one."""
    methods: list[Method] = ["sum", "max"] + (["mnz"] if norm == "min-max" else [])
    method = data.draw(st.sampled_from(methods))
    weight = st.floats(0.1, 10)
    shares = data.draw(st.lists(weight, min_size=len(members), max_size=len(members)))
    minima = [-50.0] * len(members) if norm == "theoretical" else None
    found = fuse_runs(runs_of(*members), method, weights=shares, norm=norm, minima=minima).to_dict()
    wanted = plain(members, method, norm, shares)
    assert found.keys() == wanted.keys()
    for query, docs in wanted.items():
        assert found[query] == pytest.approx(docs, rel=1e-5, abs=1e-5)


def test_min_max_by_hand() -> None:
    """a: (1 + 0) / 2; b: (0 + 1) / 2; c is absent from the first list: (0 + 0.5) / 2."""
    runs = runs_of({"q": {"a": 9.0, "b": 3.0}}, {"q": {"b": 0.3, "c": 0.2, "a": 0.1}})
    assert fuse_runs(runs).to_dict()["q"] == pytest.approx({"a": 0.5, "b": 0.5, "c": 0.25})
    assert fuse_runs(runs, weights=[3, 1]).to_dict()["q"]["a"] == pytest.approx(0.75)


def test_the_only_document_found_counts() -> None:
    """A lone exact match of BM25 that min-max turns into 0, the same as not found."""
    runs = runs_of({"q": {"b": 7.0}}, {"q": {"a": 0.5, "b": 0.4, "c": 0.3}})
    assert next(iter(fuse_runs(runs).to_dict()["q"])) == "b"


@pytest.mark.parametrize("method", ["sum", "max", "mnz", "rrf"])
def test_a_query_that_one_run_lacks_is_decided_by_the_other(method: Method) -> None:
    """Lists lost from the result, or negative scores below the zero of an absent run."""
    runs = runs_of({"q": {"a": -1.0, "b": -2.0}}, {"r": {"a": 1.0}})
    norm: Norm | None = "none" if method in ("sum", "max") else None
    found = fuse_runs(runs, method, norm=norm)
    assert [docs for _, docs, _ in found.lists()] == [["a", "b"], ["a"]]
    assert len(fuse_runs(runs, method, weights=[0, 1])) == 3


def test_rrf_and_rerank_are_the_ones_that_exist_already() -> None:
    """Two reciprocal rank fusions that differ."""
    runs = runs_of({"q": {"a": 4.0, "b": 3.0, "c": 2.0}}, {"q": {"b": -4.0, "a": -5.0}})
    assert fuse_runs(runs, "rrf").fingerprint == reciprocal_ranks(runs).fingerprint
    assert [docs for _, docs, _ in fuse_runs(runs, "rerank").lists()] == [["b", "a", "c"]]


def test_the_scale_of_a_store_gives_the_lowest_possible_score() -> None:
    """Cosines whose zero is taken to be 0: a spread of 0.3 of 0.8 instead of 1.8."""
    table = Run.from_dict({"q": {"a": 0.8, "b": 0.5}}).table
    fused = fuse_runs([Run(table, scale="cosine")] * 2, norm="theoretical").to_dict()["q"]
    assert fused == pytest.approx({"a": 1.0, "b": 1.5 / 1.8})


def test_mistakes_of_fusion_are_explained() -> None:
    """A setting without effect, or scores that mean nothing, taken without a word."""
    runs = runs_of({"q": {"a": 1.0}}, {"q": {"a": -2.0}})
    for message, error, call in (
        ("omit the norm", ConfigError, {"method": "rrf", "norm": "z"}),
        ("not be negative", ConfigError, {"method": "mnz", "norm": "z"}),
        ("Give minima", ConfigError, {"norm": "theoretical"}),
        ("below its lowest", DataError, {"norm": "theoretical", "minima": [0.0, 0.0]}),
        ("as many weights", ConfigError, {"weights": [1.0]}),
        ("two runs", ConfigError, {"method": "rerank", "weights": [1.0, 1.0]}),
        ("must be one of", ConfigError, {"method": "mean"}),
    ):
        with pytest.raises(error, match=message):
            fuse_runs(runs, **call)  # type: ignore[arg-type]


def noisy(queries: int, *, docs: int = 30, seed: int = 0) -> tuple[list[Run], dict[str, dict]]:  # type: ignore[type-arg]
    """Return runs whose signal is strong, weak and none, with ties and gaps, and judgements."""
    rng = np.random.default_rng(seed)
    tables: list[dict[str, dict[str, float]]] = [{}, {}, {}]
    qrels = {}
    for number in range(queries):
        truth = rng.normal(size=docs)
        relevant = np.argsort(-truth)[:4]
        qrels[f"q{number}"] = {f"d{d}": 1 + int(i < 2) for i, d in enumerate(relevant)}
        for table, noise, scale in zip(tables, (0.8, 1.2, 50.0), (30.0, 1.0, 5.0), strict=True):
            scores = np.round(scale * (truth + noise * rng.normal(size=docs)), 1)
            kept = rng.permutation(docs)[: rng.integers(10, docs)]
            table[f"q{number}"] = {f"d{d}": float(scores[d]) for d in kept}
    return runs_of(*tables), qrels


@pytest.mark.parametrize(
    "metric",
    ["ndcg@10", "ndcg(gain=exp)", "recall@5", "mrr@3(rel=2)", "map@20", "rbp@9", "hit_rate@2"],
)
@pytest.mark.parametrize("method", ["sum", "max", "rrf"])
def test_the_fast_measure_is_that_of_the_fused_run(metric: str, method: Method) -> None:
    """Weights tuned on numbers that no fused run has: another tie rule, or padding that counts."""
    from retrodistill.data.rankings.tuning import _Board

    runs, qrels = noisy(12)
    qrels["q3"] |= {"elsewhere": 2, "d1": 0}
    qrels["q4"] = {"d1": -1, "d2": 0}
    board = _Board.of(runs, qrels, Fusion(method=method), [None], metric=metric)
    for weights in ((0.5, 0.3, 0.2), (1.0, 0.0, 0.0)):
        run = fuse_runs(runs, method, weights=weights)
        (wanted,) = evaluate(qrels, run, [parse_metric(metric)]).values()
        found = board.measure((None, weights))
        assert found == pytest.approx([wanted[query] for query in runs[0].query_ids])


def test_tuning_finds_the_run_that_is_noise() -> None:
    """A search that returns its start, or the weights of other runs."""
    runs, qrels = noisy(60)
    found = tune_fusion(runs, qrels)
    assert found.weights[2] <= 0.1
    assert sum(found.weights) == pytest.approx(1)
    assert found.fitted >= max(*found.singles, found.equal) > found.singles[2]
    assert found.fitted > found.equal + 0.05
    assert found.held_out is None


def test_a_tuned_value_is_measured_on_other_queries() -> None:
    """A tuned figure that is too high, since it was chosen on the queries that it is told of.

    With runs of noise alone nothing can be gained, but the best of many weights looks better.
    """
    rng = np.random.default_rng(0)
    docs = [f"d{number}" for number in range(10)]
    tables = [
        {f"q{q}": dict(zip(docs, rng.normal(size=10).tolist(), strict=True)) for q in range(100)}
        for _ in range(4)
    ]
    qrels = {f"q{q}": {docs[int(rng.integers(10))]: 1} for q in range(100)}
    found = tune_fusion(runs_of(*tables), qrels, metric="mrr")
    assert found.held_out is not None
    assert found.held_out < found.fitted - 0.01
    assert found == tune_fusion(runs_of(*tables), qrels, metric="mrr")


def test_only_queries_that_a_run_holds_are_tuned_on() -> None:
    """A mean pulled down by queries that no run was made for."""
    runs, qrels = noisy(10)
    found = tune_fusion(runs, {**qrels, "other": {"d1": 1}, "unjudged": {}})
    assert found.queries == 10
    assert found.singles == tune_fusion(runs, qrels).singles
    with pytest.raises(DataError, match="none of the judged queries"):
        tune_fusion(runs, {"other": {"d1": 1}})
    with pytest.raises(ConfigError, match="cannot be tuned for bpref"):
        tune_fusion(runs, qrels, metric="bpref")
    with pytest.raises(ConfigError, match="two runs or more"):
        tune_fusion(runs[:1], qrels)


def test_the_tuned_run_is_the_one_that_was_measured() -> None:
    """A norm or a constant that is tuned, but not used."""
    runs, qrels = noisy(20)
    for method in ("sum", "rrf", "mnz"):
        found = tune_fusion(runs[:2], qrels, method=method, k=3.0)  # type: ignore[arg-type]
        (row,) = evaluate(qrels, found.fuse(runs[:2]), [parse_metric("ndcg@10")]).values()
        assert np.mean(list(row.values())) == pytest.approx(found.fitted)


def test_the_grid_covers_the_simplex() -> None:
    """Weights that do not add up to 1, or a corner that is never tried."""
    for members, steps, count in ((2, 20, 21), (3, 10, 67), (4, 5, 57)):
        points = simplex(members, steps)
        assert len(set(points)) == len(points) == count <= POINTS
        assert all(sum(point) == pytest.approx(1) for point in points)
        assert points[0] == (1 / members,) * members
        assert {tuple(map(float, row)) for row in np.eye(members)} <= set(points)
    moved = set(transfers((1.0, 0.0, 0.0), 0.25))
    assert moved == {(0.75, 0.25, 0.0), (0.75, 0.0, 0.25)}


@pytest.mark.realdata
def test_fusion_beats_both_runs_on_real_ones(shared_data: Path) -> None:
    """A hybrid that is worse than its parts: TREC DL 2019, BM25 and a dense run at depth 100."""
    from retrodistill.data.qrels import read_qrels

    folder = shared_data / "oracle" / "runs" / "msmarco-dl19"
    names = ("BM25", "D_BERT_KD_TASB", "SPLADE_P_P_ENSEMBLE_DISTIL")
    runs = [Run.read(folder / f"{name}.trec") for name in names]
    qrels = read_qrels(folder / "qrels.full.txt")
    found = tune_fusion(runs, qrels, norm="min-max")
    assert found.fitted > max(*found.singles, found.rrf)
