"""Measures against trec_eval: its outputs on real runs, and its rules by hand."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.data.qrels import read_qrels
from retrodistill.data.rankings.measures import MEASURES, Metric, measures_help
from retrodistill.data.rankings.metrics import _ranx_function, evaluate, parse_metric, parse_metrics
from retrodistill.data.store.runs import Run
from retrodistill.stages.evaluation import evaluate_runs

ORACLE = [
    "msmarco-dl19/BM25",
    "msmarco-dl19/BM25_RM3",
    "msmarco-dl19/D_BERT_KD_TASB",
    "msmarco-dl19/OPEN_AI_ADA2",
    "msmarco-dl19/SPLADE_P_P_ENSEMBLE_DISTIL",
    "msmarco-dl21/BM25",
    "msmarco-dl21/BM25_RM3",
    "msmarco-dl21/SPLADE_P_P_ENSEMBLE_DISTIL",
]
NAMES = {
    "ndcg@10": "ndcg_cut_10",
    "mrr(rel={level})": "recip_rank",
    "map(rel={level})": "map",
    "recall@100(rel={level})": "recall_100",
}


CUTOFFS = (5, 10, 15, 20, 30, 100, 200, 500, 1000)
PEERS = {
    "map(rel={level})": "map",
    "mrr(rel={level})": "recip_rank",
    "bpref(rel={level})": "bpref",
    "rprec(rel={level})": "Rprec",
    "ndcg": "ndcg",
    "precision(rel={level})": "set_P",
    "recall(rel={level})": "set_recall",
    "f1(rel={level})": "set_F",
    "hits(rel={level})": "num_rel_ret",
    **{f"ndcg@{k}": f"ndcg_cut_{k}" for k in CUTOFFS},
    **{
        f"{ours}@{k}(rel={{level}})": f"{theirs}_{k}"
        for ours, theirs in (("map", "map_cut"), ("recall", "recall"), ("precision", "P"))
        for k in CUTOFFS
    },
    **{f"hit_rate@{k}(rel={{level}})": f"success_{k}" for k in (1, 5, 10)},
}
"""Ours -> trec_eval's, for all that both know; RBP and judged@k have further rules."""

JUDGED = {f"judged@{k}": f"unj_{k}" for k in (5, 10, 20)}
FOLDERS = {
    "out.test.aq": ("qrels.test", "results.test", 1, None),
    "out.test.aqc": ("qrels.test", "results.trunc", 1, None),
    "out.test.aqcM": ("qrels.test", "results.trunc", 1, 100),
    "out.test.aql": ("qrels.rel_level", "results.test", 2, None),
}
"""Output -> judgements, run, relevance level (-l), documents of a query that count (-M)."""


def expected(path: Path, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return measure -> query id, or `all` -> value, from trec_eval's output."""
    values: dict[str, dict[str, float]] = {}
    for line in path.read_text().splitlines():
        measure, query, value = line.split()
        if measure in names:
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
    wanted = expected(folder / f"{name}.trec_eval_q.{suffix}", [*NAMES.values()])
    metrics = parse_metrics([form.format(level=level) for form in NAMES])
    found = evaluate(qrels, run, metrics)
    assert len(wanted) == len(NAMES)
    for metric, measure in zip(metrics, NAMES.values(), strict=True):
        row = found[str(metric)]
        for query, value in (wanted[measure] | {"all": wanted[measure]["all"]}).items():
            own = sum(row.values()) / len(row) if query == "all" else row[query]
            assert own == pytest.approx(value, abs=5.1e-5), (measure, query)


@pytest.mark.realdata
@pytest.mark.parametrize("output", FOLDERS)
def test_trec_evals_own_tests_pass(output: str, shared_data: Path, tmp_path: Path) -> None:
    """A measure that has trec_eval's name and another value, or an `all` over other queries."""
    folder = shared_data / "oracle" / "trec_eval"
    qrels_file, run_file, level, depth = FOLDERS[output]
    lines = (folder / run_file).read_text().splitlines()
    (tmp_path / "run.trec").write_text("\n".join(" ".join(line.split()[:6]) for line in lines))
    run = Run.read(tmp_path / "run.trec")  # trec_eval reads over what follows the tag
    peers = PEERS | ({"rbp(p=0.9)": "rbp"} if qrels_file == "qrels.test" else {})
    wanted = expected(folder / output, [*peers.values(), *JUDGED.values()])
    assert wanted.keys() == {*peers.values(), *JUDGED.values()}
    metrics = [form.format(level=level) for form in (*peers, *JUDGED)]
    found = evaluate(
        read_qrels(folder / qrels_file), run.top(depth) if depth else run, parse_metrics(metrics)
    )
    listed = set(run.query_ids)
    for ours, measure in zip(metrics, (*peers.values(), *JUDGED.values()), strict=True):
        row = found[ours]
        for query, value in wanted[measure].items():
            if measure.startswith("unj"):
                own = 1 - row[query] if query in listed else value
            elif query == "all":
                own = sum(row.values()) / (1 if ours.startswith("hits") else len(row))
            else:
                own = row[query]
            assert own == pytest.approx(value, abs=5.1e-5), (ours, query)


@pytest.mark.realdata
def test_other_cutoffs_of_trec_evals_tests(shared_data: Path) -> None:
    """Cutoffs that only trec_eval's defaults have been compared with."""
    folder = shared_data / "oracle" / "trec_eval"
    peers = {
        **{f"precision@{k}": f"P_{k}" for k in (3, 5, 7)},
        **{f"recall@{k}": f"recall_{k}" for k in (20, 2000)},
        **{f"ndcg@{k}": f"ndcg_cut_{k}" for k in (10, 20, 23)},
        **{f"success@{k}": f"success_{k}" for k in (2, 5, 20)},
    }
    wanted = expected(folder / "out.test.meas_params", [*peers.values()])
    run = Run.read(folder / "results.test")
    found = evaluate(read_qrels(folder / "qrels.test"), run, parse_metrics([*peers]))
    for ours, theirs in peers.items():
        for query, value in found[ours].items():
            assert value == pytest.approx(wanted[theirs][query], abs=5.1e-5), (ours, query)


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


QRELS = st.dictionaries(
    st.sampled_from(["q1", "q2", "q3"]),
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(-2, 3), min_size=1),
    min_size=1,
)
LISTS = st.dictionaries(
    st.sampled_from(["q1", "q2", "q3"]),
    st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from([0.0, 0.5, 1.0]), min_size=1),
    min_size=1,
)
PYTREC = {
    "ndcg": "ndcg",
    "ndcg@1": "ndcg_cut_1",
    "ndcg@5": "ndcg_cut_5",
    "map(rel={level})": "map",
    "map@3(rel={level})": "map_cut_3",
    "mrr(rel={level})": "recip_rank",
    "recall@2(rel={level})": "recall_2",
    "recall@20(rel={level})": "recall_20",
    "precision@3(rel={level})": "P_3",
    "precision@20(rel={level})": "P_20",
    "rprec(rel={level})": "Rprec",
    "bpref(rel={level})": "bpref",
    "hit_rate@1(rel={level})": "success_1",
    "hit_rate@4(rel={level})": "success_4",
    "precision(rel={level})": "set_P",
    "recall(rel={level})": "set_recall",
    "f1(rel={level})": "set_F",
    "hits(rel={level})": "num_rel_ret",
}
ASKED = {
    "ndcg",
    "ndcg_cut.1,5",
    "map",
    "map_cut.3",
    "recip_rank",
    "recall.2,20",
    "P.3,20",
    "Rprec",
    "bpref",
    "success.1,4",
    "set_P",
    "set_recall",
    "set_F",
    "num_rel_ret",
}


@settings(max_examples=60, deadline=None)
@given(QRELS, LISTS, st.sampled_from([1, 2, 3]), st.booleans())
def test_measures_equal_pytrec_eval(
    qrels: dict[str, dict[str, int]],
    lists: dict[str, dict[str, float]],
    level: int,
    judged_only: bool,
) -> None:
    """Values that agree on real runs, and differ where scores are tied, a query is absent, a
    grade is negative, nothing is relevant, nothing is judged not relevant, or a list is condensed.
    """
    import pytrec_eval

    # pytrec_eval never returns from a query that has no grade of 0 or more.
    qrels = {query: {**judged, "z": 0} for query, judged in qrels.items()}
    peer = pytrec_eval.RelevanceEvaluator(
        qrels, ASKED, relevance_level=level, judged_docs_only_flag=judged_only
    )
    wanted = peer.evaluate(lists)
    metrics = parse_metrics([form.format(level=level) for form in PYTREC])
    found = evaluate(qrels, Run.from_dict(lists), metrics, judged_only=judged_only)
    for metric, theirs in zip(metrics, PYTREC.values(), strict=True):
        for query, value in found[str(metric)].items():
            expected = wanted.get(query, {}).get(theirs, 0.0)
            assert value == pytest.approx(expected, abs=1e-9), (str(metric), query)


@settings(max_examples=20, deadline=None)
@given(QRELS, LISTS)
def test_exponential_gain_is_that_of_other_grades(
    qrels: dict[str, dict[str, int]], lists: dict[str, dict[str, float]]
) -> None:
    """A gain that is one of the discount's, or of only one side of the quotient."""
    run = Run.from_dict(lists)
    metrics = parse_metrics("ndcg@5(gain=exp),ndcg_burges@5,dcg(gain=exp),dcg_burges")
    found = evaluate(qrels, run, metrics)
    powers = {q: {d: 2 ** max(g, 0) - 1 for d, g in own.items()} for q, own in qrels.items()}
    wanted = evaluate(powers, run, parse_metrics("ndcg@5(gain=grade),dcg"))
    for query in qrels:
        first, second = wanted["ndcg@5(gain=grade)"][query], wanted["dcg"][query]
        assert found["ndcg@5(gain=exp)"][query] == pytest.approx(first, abs=1e-12)
        assert found["ndcg_burges@5"][query] == pytest.approx(first, abs=1e-12)
        assert found["dcg(gain=exp)"][query] == pytest.approx(second, abs=1e-12)
        assert found["dcg_burges"][query] == pytest.approx(second, abs=1e-12)


def test_bpref_rbp_and_judged_by_hand() -> None:
    """Grades taken as gains of RBP, a p of another power, unjudged documents that count in bpref.

    Ranks: x unjudged, n grade 0, a grade 2, y grade -1, b grade 1; c grade 1 is not found.
    """
    qrels = {"q": {"a": 2, "b": 1, "c": 1, "n": 0, "m": 0, "y": -1}, "empty": {"a": 1}}
    run = Run.from_dict({"q": {"x": 5.0, "n": 4.0, "a": 3.0, "y": 2.0, "b": 1.0}})
    text = "bpref,rbp,rbp@3(p=0.5),rbp(rel=2,p=.9),judged,judged@2,judged@3,Judged@10"
    found = {name: row["q"] for name, row in evaluate(qrels, run, parse_metrics(text)).items()}
    assert found["bpref"] == pytest.approx(2 * (1 - 1 / 2) / 3)
    assert found["rbp"] == pytest.approx(0.2 * (0.8**2 + 0.8**4))
    assert found["rbp@3(p=0.5)"] == pytest.approx(0.5**3)
    assert found["rbp(rel=2,p=.9)"] == pytest.approx(0.1 * 0.9**2)
    assert found["judged"] == found["Judged@10"] == 3 / 5
    assert (found["judged@2"], found["judged@3"]) == (1 / 2, 2 / 3)
    rows = evaluate(qrels, run, parse_metrics(text))
    assert {row["empty"] for row in rows.values()} == {0}


def test_condensed_lists_by_hand() -> None:
    """An unjudged document that still takes a rank, or a rate of judged ones that is always 1."""
    qrels = {"q": {"a": 1, "b": 0}}
    run = Run.from_dict({"q": {"x": 4.0, "b": 3.0, "y": 2.0, "a": 1.0}})
    metrics = parse_metrics("mrr,mrr@2,judged@2")
    assert evaluate(qrels, run, metrics)["mrr"] == {"q": 1 / 4}
    found = evaluate(qrels, run, metrics, judged_only=True)
    assert found == {"mrr": {"q": 1 / 2}, "mrr@2": {"q": 1 / 2}, "judged@2": {"q": 1 / 2}}
    report = evaluate_runs(qrels, {"one": run}, metrics="mrr@3", judged_only=True)
    assert report.systems["one"] == {"mrr@3": 1 / 2}
    assert report.judged["one"] == {"judged@3": pytest.approx(1 / 3)}


def test_a_document_with_the_id_of_the_query_is_counted_and_dropped_if_asked() -> None:
    """A corpus of queries whose best hit is always the query itself."""
    qrels = {"q1": {"a": 1}, "q2": {"b": 1}}
    run = Run.from_dict(
        {"q1": {"q1": 2.0, "a": 1.0}, "q2": {"q1": 2.0, "b": 1.0}, "other": {"other": 1.0}}
    )
    kept = evaluate_runs(qrels, {"one": run}, metrics="mrr")
    dropped = evaluate_runs(qrels, {"one": run}, metrics="mrr", ignore_identical_ids=True)
    assert kept.per_query["one"]["mrr"] == {"q1": 1 / 2, "q2": 1 / 2}
    assert dropped.per_query["one"]["mrr"] == {"q1": 1, "q2": 1 / 2}
    assert kept.identical_ids == dropped.identical_ids == {"one": 1}
    assert len(run) == 5


def test_the_share_of_judged_documents_is_that_of_queries_with_a_list() -> None:
    """A rate that says how many queries are absent instead of how well lists are judged."""
    qrels = {"q1": {"a": 1}, "q2": {"a": 1}}
    run = Run.from_dict({"q1": {"a": 2.0, "x": 1.0}, "q9": {"z": 1.0}})
    report = evaluate_runs(qrels, {"one": run}, metrics="ndcg@1,mrr@2,map")
    assert report.judged["one"] == {"judged@1": 1.0, "judged@2": 0.5}
    assert list(report.systems["one"]) == ["ndcg@1", "mrr@2", "map"]
    assert evaluate_runs(qrels, {"one": run}, metrics="map").judged["one"] == {"judged": 0.5}


def test_compiling_is_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A minute of silence at the first call, or the announcement of what is compiled already."""
    import ranx.metrics

    evaluate({"q": {"a": 1}}, Run.from_dict({"q": {"a": 1.0}}), [Metric("ndcg", 10)])
    capfd.readouterr()
    _ranx_function("ndcg_burges")  # the same compiled code
    assert capfd.readouterr().err == ""
    kernel = SimpleNamespace(
        signatures=[],
        stats=SimpleNamespace(cache_path=tmp_path),
        py_func=ranx.metrics.f1.__globals__["_f1_parallel"].py_func,
    )
    monkeypatch.setitem(ranx.metrics.f1.__globals__, "_f1_parallel", kernel)
    _ranx_function("f1")
    assert "compiling ranx's f1" in capfd.readouterr().err
    (tmp_path / "f1._f1_parallel-20.py311.1.nbc").touch()
    _ranx_function("f1")
    assert capfd.readouterr().err == ""


def test_every_measure_is_explained_and_measured() -> None:
    """A name in the table that no function stands behind."""
    text = measures_help()
    assert all(f"\n{name}" in text and row.source for name, row in MEASURES.items())
    run = Run.from_dict({"q": {"a": 1.0, "b": 0.5}})
    found = evaluate({"q": {"a": 1}}, run, [Metric(name) for name in MEASURES])
    assert {name: row["q"] for name, row in found.items() if row["q"] != 1} == {
        "precision": 1 / 2,
        "f1": pytest.approx(2 / 3),
        "rbp(p=0.8)": pytest.approx(0.2),
        "judged": 1 / 2,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ndgc@10", "Did you mean 'ndcg'"),
        ("ndcg@x", "is not understood"),
        ("ndcg@10(rel=2)", "uses the grades"),
        ("mrr@0", "at least 1"),
        ("", "is not understood"),
        ("rbp(p=1.5)", "between 0 and 1"),
        ("rbp(p=0.0)", "between 0 and 1"),
        ("rbp(q=0.5)", "has no setting 'q'.* It has: rel, p"),
        ("rbp(p=.5,p=.6)", "setting 'p' is given twice"),
        ("ndcg(gain=2)", "grade, or exp"),
        ("map(rel=0)", "a grade of at least 1"),
        ("map()", "has empty settings"),
        ("judged@5(rel=1)", "no setting 'rel'.* It has: none"),
        ("bpref@10", "takes no cutoff"),
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
