"""Measures against trec_eval: its outputs on real runs, and its rules by hand."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodistill.arithmetic.metrics import evaluate, parse_metric, parse_metrics
from retrodistill.errors import ConfigError, DataError
from retrodistill.evaluation import evaluate_runs
from retrodistill.store.qrels import read_qrels
from retrodistill.store.runs import Run

ORACLE = [
    "msmarco-dl19/BM25", "msmarco-dl19/BM25_RM3", "msmarco-dl19/D_BERT_KD_TASB",
    "msmarco-dl19/OPEN_AI_ADA2", "msmarco-dl19/SPLADE_P_P_ENSEMBLE_DISTIL",
    "msmarco-dl21/BM25", "msmarco-dl21/BM25_RM3", "msmarco-dl21/SPLADE_P_P_ENSEMBLE_DISTIL",
]  # fmt: skip
NAMES = {
    "ndcg@10": "ndcg_cut_10",
    "mrr(rel={level})": "recip_rank",
    "map(rel={level})": "map",
    "recall@100(rel={level})": "recall_100",
}


def expected(path: Path) -> dict[str, dict[str, float]]:
    values: dict[str, dict[str, float]] = {}
    for line in path.read_text().splitlines():
        measure, query, value = line.split()
        if query != "all" and measure in NAMES.values():
            values.setdefault(measure, {})[query] = float(value)
    return values


@pytest.mark.realdata
@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("name", ORACLE)
def test_real_runs_are_measured_as_by_trec_eval(name: str, level: int, shared_data: Path) -> None:
    """A tie, a gain or an absent query treated otherwise than in every published number."""
    folder = shared_data / "oracle" / "runs"
    qrels = read_qrels(folder / Path(name).parent / "qrels.full.txt")
    run = Run.read(folder / f"{name}.trec")
    suffix = "l2.txt" if level == 2 else "txt"
    wanted = expected(folder / f"{name}.trec_eval_q.{suffix}")
    metrics = parse_metrics([form.format(level=level) for form in NAMES])
    found = evaluate(qrels, run, metrics)
    assert len(wanted) == len(NAMES)
    for metric, measure in zip(metrics, NAMES.values(), strict=True):
        for query, value in wanted[measure].items():
            assert found[str(metric)][query] == pytest.approx(value, abs=5.1e-5), (measure, query)


def test_measures_by_hand() -> None:
    """Relevant at ranks 2 and 4 of four, one relevant document not found, grades 1, 2, 1."""
    qrels = {"q": {"b": 1, "d": 2, "x": 1, "a": 0}}
    run = Run.from_dict({"q": {"a": 4.0, "b": 3.0, "c": 2.0, "d": 1.0}})
    found = evaluate(qrels, run, parse_metrics("mrr,map,recall@3,ndcg@4,map(rel=2)"))
    assert found["mrr"]["q"] == 0.5
    assert found["map"]["q"] == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert found["recall@3"]["q"] == pytest.approx(1 / 3)
    gained = 1 / 1.5849625 + 2 / 2.3219281
    ideal = 2 + 1 / 1.5849625 + 1 / 2
    assert found["ndcg@4"]["q"] == pytest.approx(gained / ideal)
    assert found["map(rel=2)"]["q"] == 0.25


def test_a_query_without_results_counts_as_zero() -> None:
    """An evaluation that drops queries without results, and so rewards a silent system."""
    qrels = {"q1": {"a": 1}, "q2": {"a": 1}}
    report = evaluate_runs(qrels, {"one": Run.from_dict({"q1": {"a": 1.0}, "q9": {"a": 1.0}})})
    assert report.systems["one"]["mrr@10"] == 0.5
    assert report.per_query["one"]["mrr@10"] == {"q1": 1.0, "q2": 0.0}


def test_ties_go_to_the_higher_id() -> None:
    """Equal scores in the order of the file, which flatters whoever wrote it."""
    qrels = {"q": {"a": 1}}
    tied = Run.from_columns(["q", "q"], ["a", "b"], [1.0, 1.0])
    assert evaluate(qrels, tied, [parse_metric("mrr")])["mrr"]["q"] == 0.5


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["q1", "q2", "q3"]),
        st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 3), min_size=1),
        min_size=1,
    ),
    st.dictionaries(
        st.sampled_from(["q1", "q2", "q3"]),
        st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from([0.0, 0.5, 1.0]), min_size=1),
        min_size=1,
    ),
)
def test_measures_equal_pytrec_eval_with_ties(
    qrels: dict[str, dict[str, int]], lists: dict[str, dict[str, float]]
) -> None:
    """Values that agree on real runs and differ where every second score is tied."""
    import pytrec_eval

    peer = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut_10", "map", "recip_rank", "recall_5"})
    wanted = peer.evaluate(lists)
    found = evaluate(qrels, Run.from_dict(lists), parse_metrics("ndcg@10,map,mrr,recall@5"))
    for ours, theirs in zip(found, ("ndcg_cut_10", "map", "recip_rank", "recall_5"), strict=True):
        for query, value in found[ours].items():
            assert value == pytest.approx(wanted.get(query, {}).get(theirs, 0.0), abs=1e-9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ndgc@10", "Did you mean 'ndcg'"),
        ("ndcg@x", "name@cutoff"),
        ("ndcg@10(rel=2)", "uses the grades"),
        ("mrr@0", "at least 1"),
        ("", "name@cutoff"),
    ],
)
def test_a_wrong_metric_is_explained(text: str, message: str) -> None:
    """A metric that is silently another one."""
    with pytest.raises(ConfigError, match=message):
        parse_metric(text)


def test_runs_for_other_queries_are_refused() -> None:
    """A mean of zeros because the ids of two files do not fit."""
    with pytest.raises(DataError, match=r"shares no query.*'7'.*'q1'"):
        evaluate_runs({"q1": {"a": 1}}, {"one": Run.from_dict({"7": {"a": 1.0}})})
    with pytest.raises(DataError, match="no judgements"):
        evaluate_runs({}, {"one": Run.from_dict({"7": {"a": 1.0}})})
