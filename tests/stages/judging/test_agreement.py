"""Agreement of machine grades with human ones, by hand."""

from pathlib import Path

import pytest

from retrodistill.base.config import JudgeSettings
from retrodistill.data.datasets import load_collection
from retrodistill.data.store.runs import Run
from retrodistill.stages.judging.agreement import Agreement, PairAgreement, agreement_of
from retrodistill.stages.judging.judging import judge_runs


def test_kappa_by_hand() -> None:
    """Agreement by chance, reported as agreement."""
    human = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    machine = [1, 1, 1, 0, 1, 0, 0, 0, 0, 0]
    # they agree on 0.8; by chance on 0.4 * 0.4 + 0.6 * 0.6 = 0.52
    found = PairAgreement.of(human, machine)
    assert found.share == pytest.approx(0.8)
    assert found.kappa == pytest.approx((0.8 - 0.52) / (1 - 0.52))
    assert found.weighted_kappa is None  # people gave two grades: a weight has nothing to weigh
    blind = PairAgreement.of(human, [0] * 10)
    assert (blind.share, blind.kappa) == (pytest.approx(0.6), pytest.approx(0.0))


def test_weighted_kappa_by_hand() -> None:
    """A miss by one grade counted as a miss by three, or grades cut to relevant or not."""
    human, machine = [0, 1, 2, 3], [0, 1, 2, 2]
    # squared gaps: 1 in all; by chance, each of 16 combinations / 4
    chance = sum((h - m) ** 2 for h in human for m in machine) / 4
    found = PairAgreement.of(human, machine)
    assert found.weighted_kappa == pytest.approx(1 - 1 / chance)
    assert found.kappa == pytest.approx(1.0)
    assert PairAgreement.of([-1, 0, 2, 2], [0, 0, 2, 2]).weighted_kappa == pytest.approx(1.0)


def test_one_human_grade_has_no_kappa() -> None:
    """Qrels that list relevant documents only: any judge looks as if it knew nothing."""
    assert PairAgreement.of([1, 1, 1], [1, 0, 1]).kappa is None
    assert PairAgreement.of([], []) == PairAgreement(
        pairs=0, share=None, kappa=None, weighted_kappa=None
    )


HUMAN = {"q1": {"a": 1, "b": 0}, "q2": {"c": 2}, "q9": {"a": 1}}
MACHINE = {"q1": {"a": 3, "b": 0, "x": 2}, "q2": {"c": 0, "y": 1}, "q3": {"z": 1}}


def run(*docs: str) -> Run:
    """Return the run of these documents for both queries."""
    scores = {doc: -float(rank) for rank, doc in enumerate(docs)}
    return Run.from_dict({"q1": scores, "q2": scores})


def agreement(*runs: Run) -> Agreement:
    named = {f"s{number}": run for number, run in enumerate(runs)}
    found = agreement_of(MACHINE, HUMAN, named, split="test", depth=10)
    assert found is not None
    return found


def test_what_is_compared() -> None:
    """Pairs of queries that people never judged, or unjudged pairs among the judged ones."""
    found = agreement(run("a", "c"))
    assert found.queries == 2
    assert (found.judged.pairs, found.assumed.pairs) == (3, 5)
    assert found.judged.share == pytest.approx(2 / 3)  # a and b, but not c
    assert found.assumed.share == pytest.approx(2 / 5)
    assert found.confusion == {
        "0": {"0": 1},
        "1": {"3": 1},
        "2": {"0": 1},
        "none": {"2": 1, "1": 1},
    }
    assert [*found.confusion] == ["0", "1", "2", "none"]
    assert agreement_of(MACHINE, {"q7": {"a": 1}}, {}, split="test", depth=10) is None


def test_a_tau_needs_three_runs() -> None:
    """Two runs in the same order, which half of all blind judges give, shown as a tau of 1."""
    good, middle, bad = run("a", "c", "b"), run("b", "a", "c"), run("b", "z", "w")
    two = agreement(good, bad)
    assert two.tau is None
    assert "says nothing" in two.tau_note
    assert two.tau_note in two.notes()
    assert two.to_dict()["tau_note"] == two.tau_note
    three = agreement(good, middle, bad)
    assert three.tau == pytest.approx(1.0)
    assert "of 3 runs: 1.000" in three.notes()[0]
    turned = agreement(run("x", "y"), run("a", "b"), run("c", "b"))
    # people: 0, 0.5, 0.5; the judge: by x and y, by a, and nothing
    assert turned.tau == pytest.approx(-1 / (3 * 2) ** 0.5 * 2)
    assert agreement(good, good, good).tau is None


def test_the_numbers_are_those_of_scipy() -> None:
    """An order of systems that ties break by chance."""
    from scipy.stats import kendalltau

    found = agreement(run("x"), run("a"), run("b"), run("a", "c"), run("c", "y", "x"))
    people, judge = zip(*found.systems.values(), strict=True)
    assert found.tau == pytest.approx(kendalltau(people, judge).statistic)


@pytest.mark.realdata
def test_real_systems_and_real_grades(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A measure of agreement that cannot tell a weak judge from a blind one (TREC DL 2019)."""
    monkeypatch.setenv("RETRODISTILL_CACHE", str(tmp_path / "cache"))
    folder = shared_data / "oracle" / "runs" / "msmarco-dl19"
    names = ("BM25", "BM25_RM3", "D_BERT_KD_TASB", "OPEN_AI_ADA2", "SPLADE_P_P_ENSEMBLE_DISTIL")
    runs = {name: Run.read(folder / f"{name}.trec") for name in names}
    collection = load_collection(f"beir:{shared_data / 'msmarco-dl19-pool'}")
    settings = JudgeSettings(judge="bm25", quantiles="0.4,0.6,0.8", depth=10, max_queries=20)
    found = judge_runs(collection, runs, settings, tmp_path / "out", split="test").agreement
    assert found is not None
    assert found.queries == 20
    assert found.judged.pairs > 300
    assert found.judged.kappa is not None
    assert 0.0 < found.judged.kappa < 0.4  # words alone say something, and not much
    assert found.judged.weighted_kappa is not None
    assert found.tau is not None
    assert found.systems["BM25"][0] < found.systems["D_BERT_KD_TASB"][0]
    # what BM25 calls good, BM25 has found: a judge and a system of one kind
    assert found.systems["BM25"][1] > found.systems["D_BERT_KD_TASB"][1]
