"""Does a student follow its teacher: against scipy, by hand, and by brute force."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.data.store.runs import Run
from retrodistill.stages.evaluation.fidelity import MEASURES, fidelity, fidelity_table

Lists = dict[str, dict[str, float]]
DOCS = [f"d{number}" for number in range(8)]
SCORES = st.integers(-4, 4).map(float)
BOTH = st.dictionaries(
    st.sampled_from(["q1", "q2", "q3"]),
    st.tuples(*[st.dictionaries(st.sampled_from(DOCS), SCORES, min_size=1)] * 2),
    min_size=1,
)


def value(
    measure: str, student: dict[str, float], teacher: dict[str, float], **options: float
) -> float:
    """Return a measure of one query."""
    runs = [Run.from_dict({"q": scores}) for scores in (student, teacher)]
    return fidelity(*runs, measures=[measure], **options).per_query[measure]["q"]


def runs_of(both: dict[str, tuple[dict[str, float], dict[str, float]]]) -> tuple[Run, Run]:
    student, teacher = (Run.from_dict({q: two[side] for q, two in both.items()}) for side in (0, 1))
    return student, teacher


def random_runs(queries: int, docs: int, *, seed: int, levels: int) -> tuple[Run, Run]:
    """Return two runs with ties that share about half of their documents."""
    rng = np.random.default_rng(seed)

    def run() -> Run:
        return Run.from_dict(
            {
                f"q{q}": {
                    f"d{d}": float(rng.integers(levels))
                    for d in rng.choice(2 * docs, rng.integers(docs // 2, docs), replace=False)
                }
                for q in range(queries)
            }
        )

    return run(), run()


def plain_rbo(student: dict[str, float], teacher: dict[str, float], p: float) -> float:
    """RBO_ext as the paper's text has it: sets of the first d, tied ones at their first rank."""

    def first(scores: dict[str, float], depth: int) -> set[str]:
        def rank(doc: str) -> int:
            return 1 + sum(other > scores[doc] for other in scores.values())

        return {doc for doc in scores if rank(doc) <= depth}

    shorter, longer = sorted((len(student), len(teacher)))

    def agreement(depth: int, rate: float = 0.0) -> float:
        a, b = first(student, depth), first(teacher, depth)
        unseen = max(0, depth - shorter)
        sizes = sum(max(len(docs), depth) for docs in (a, b))
        return 2 * (len(a & b) + rate * unseen) / sizes

    rate = agreement(shorter)
    values = [agreement(depth, rate) for depth in range(1, longer + 1)]
    total = sum(p**depth * value for depth, value in enumerate(values, 1))
    return (1 - p) / p * total + values[-1] * p**longer


def equation_32(a: Sequence[str], b: Sequence[str], p: float) -> float:
    """RBO_ext of uneven lists without ties, term by term as it is printed."""
    short, long = sorted((a, b), key=len)
    s, l = len(short), len(long)  # noqa: E741
    common = [len(set(short[:d]) & set(long[:d])) for d in range(l + 1)]
    total = sum(common[d] / d * p**d for d in range(1, l + 1))
    total += sum(common[s] * (d - s) / (s * d) * p**d for d in range(s + 1, l + 1))
    return (1 - p) / p * total + ((common[l] - common[s]) / l + common[s] / s) * p**l


@pytest.mark.parametrize("levels", [3, 10_000])
def test_correlations_agree_with_scipy(levels: int) -> None:
    """Ties counted as order, or documents of one query compared with those of another."""
    from scipy.stats import kendalltau, pearsonr, spearmanr

    student, teacher = random_runs(30, 20, seed=levels, levels=levels)
    found = fidelity(student, teacher)
    ours, theirs = student.to_dict(), teacher.to_dict()
    peers = {"tau": kendalltau, "spearman": spearmanr, "margin": pearsonr}
    compared = 0
    for query in found.per_query["tau"]:
        shared = sorted(set(ours[query]) & set(theirs[query]))
        assert found.shared[query] == len(shared)
        a, b = ([scores[query][doc] for doc in shared] for scores in (ours, theirs))
        for name, peer in peers.items():
            if len(set(a)) > 1:
                compared += 1
                wanted = peer(a, b).statistic
                assert found.per_query[name][query] == pytest.approx(wanted, abs=1e-9)
    assert compared > 60


def test_tau_by_hand() -> None:
    """Six pairs: four in order, one turned, one tied in one run; (4 - 1) / sqrt(6 * 5)."""
    student = {"a": 4.0, "b": 3.0, "c": 2.0, "d": 1.0}
    teacher = {"a": 3.0, "b": 4.0, "c": 2.0, "d": 2.0}
    assert value("tau", student, teacher) == pytest.approx(3 / math.sqrt(30))


def test_margin_is_the_correlation_of_differences() -> None:
    """A correlation that is called one of margins, and is one of something else."""
    student, teacher = random_runs(12, 16, seed=4, levels=50)
    found = fidelity(student, teacher, measures=["margin"])
    pools: list[tuple[float, float]] = []
    ours, theirs = student.to_dict(), teacher.to_dict()
    for query, own in found.per_query["margin"].items():
        shared = sorted(set(ours[query]) & set(theirs[query]))
        pairs = [
            (ours[query][a] - ours[query][b], theirs[query][a] - theirs[query][b])
            for a in shared
            for b in shared
            if a != b
        ]
        assert own == pytest.approx(np.corrcoef(*zip(*pairs, strict=True))[0, 1])
        pools += pairs
    assert found.pooled_margin == pytest.approx(np.corrcoef(*zip(*pools, strict=True))[0, 1])


def test_pooled_margins_notice_another_scale_in_each_query() -> None:
    """Margins that fit in each query alone, taken for margins that fit."""
    teacher = Run.from_dict({q: {"a": 1.0, "b": 2.0, "c": 3.0} for q in ("q1", "q2")})
    student = Run.from_dict(
        {"q1": {"a": 1.0, "b": 2.0, "c": 3.0}, "q2": {"a": 10.0, "b": 20.0, "c": 30.0}}
    )
    found = fidelity(student, teacher)
    assert found.means["margin"] == pytest.approx(1)
    assert found.pooled_margin == pytest.approx(11 / math.sqrt(2 * 101))


def test_kl_by_hand() -> None:
    """Bits, the other direction, a temperature that multiplies, or one that both sides share.

    Teacher (3/4, 1/4) from scores 2 ln 3, 0 at temperature 2; student (1/2, 1/2).
    """
    teacher = {"a": 2 * math.log(3), "b": 0.0, "x": 50.0}  # the student has no x: it is left out
    student = {"a": 1.0, "b": 1.0, "y": 9.0}
    wanted = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert value("kl", student, teacher, teacher_temperature=2.0) == pytest.approx(wanted, abs=1e-6)
    flat = value("kl", {"a": 8.0, "b": 0.0}, {"a": math.log(3), "b": 0.0}, student_temperature=8.0)
    first = math.e / (1 + math.e)
    wanted = 0.75 * math.log(0.75 / first) + 0.25 * math.log(0.25 / (1 - first))
    assert flat == pytest.approx(wanted, abs=1e-6)


def test_rbo_by_hand() -> None:
    """A weight that is off by one depth, or a sum that is not extrapolated.

    Lists a b c and b a d, p = 1/2: A = 0, 1, 2/3; the sum 0 + 1/4 + 1/12, and 2/3 * 1/8.
    """
    student = {"a": 3.0, "b": 2.0, "c": 1.0}
    teacher = {"b": 3.0, "a": 2.0, "d": 1.0}
    assert value("rbo", student, teacher, p=0.5) == pytest.approx(1 / 4 + 1 / 12 + 1 / 12)


@pytest.mark.parametrize("p", [0.5, 0.9, 0.98])
@pytest.mark.parametrize("levels", [3, 10_000])
def test_rbo_agrees_with_brute_force(p: float, levels: int) -> None:
    """Uneven lists and ties, which the short form of the formula leaves out."""
    student, teacher = random_runs(20, 16, seed=7, levels=levels)
    found = fidelity(student, teacher, measures=["rbo"], p=p).per_query["rbo"]
    ours, theirs = student.to_dict(), teacher.to_dict()
    assert {len(own) == len(theirs[query]) for query, own in ours.items()} == {True, False}
    for query, own in found.items():
        assert own == pytest.approx(plain_rbo(ours[query], theirs[query], p), abs=1e-12)
        untied = all(len(set(run[query].values())) == len(run[query]) for run in (ours, theirs))
        if untied:
            wanted = equation_32(list(ours[query]), list(theirs[query]), p)
            assert own == pytest.approx(wanted, abs=1e-12)


def test_overlap_and_best_by_hand() -> None:
    """A share of `k` where no list has `k`, and a best document that the student never saw."""
    student = {"a": 9.0, "b": 8.0, "c": 7.0, "d": 6.0}
    teacher = {"x": 9.0, "b": 8.0, "a": 7.0}
    assert value("overlap", student, teacher, k=2) == 1 / 2
    assert value("overlap", student, teacher, k=1) == 0
    assert value("overlap", student, teacher, k=10) == 2 / 4
    assert value("same_best", student, teacher) == 0  # of a and b: a, and b
    assert value("same_best", student, {"x": 9.0, "a": 8.0, "c": 8.0, "d": 9.0}) == 0
    assert value("same_best", student, {"x": 9.0, "a": 8.0, "c": 7.0}) == 1


def test_what_cannot_be_compared_is_named() -> None:
    """A mean over the easy queries that does not say how many it left out."""
    teacher = Run.from_dict(
        {
            "alone": {"a": 1.0, "b": 2.0},
            "flat": {"a": 1.0, "b": 1.0, "c": 5.0},
            "absent": {"a": 1.0},
            "good": {"a": 1.0, "b": 2.0},
            "dull": {"a": 1.0, "b": 2.0},
            "apart": {"a": 1.0, "b": 2.0},
        }
    )
    student = Run.from_dict(
        {
            "dull": {"a": 3.0, "b": 3.0},
            "good": {"a": 1.0, "b": 2.0, "c": 3.0},
            "alone": {"a": 1.0, "z": 2.0},
            "flat": {"a": 1.0, "b": 2.0},
            "extra": {"a": 1.0},
            "apart": {"y": 1.0, "z": 2.0},
        }
    )
    found = fidelity(student, teacher)
    assert found.skipped == {
        "not in the student's run": ["absent"],
        "not in the teacher's run": ["extra"],
        "fewer than 2 shared documents": ["alone", "apart"],
        "constant teacher": ["flat"],
    }
    assert found.shared == {"dull": 2, "good": 2, "alone": 1, "flat": 2, "apart": 0}
    assert found.coverage == 7 / 11
    assert found.per_query["tau"] == {"dull": 0, "good": 1}
    assert found.per_query["margin"] == found.per_query["spearman"] == {"dull": 0, "good": 1}
    assert found.per_query["overlap"] == pytest.approx(
        {"dull": 1, "good": 2 / 3, "alone": 1 / 2, "flat": 2 / 3, "apart": 0}
    )
    assert found.means["tau"] == 0.5
    plain = found.to_dict()
    assert plain["queries"]["tau"] == 2
    assert plain["queries"]["rbo"] == 5
    assert "per_query" not in plain
    assert found.to_dict(per_query=True)["per_query"]["kl"].keys() == {"dull", "good"}


def test_nothing_to_compare_has_no_mean() -> None:
    """NaN, or a perfect 0 of KL, for runs that share no document."""
    found = fidelity(Run.from_dict({"q": {"a": 1.0}}), Run.from_dict({"q": {"b": 1.0}}))
    assert found.means["kl"] is None
    assert found.means["tau"] is None
    assert found.pooled_margin is None
    assert found.means["overlap"] == found.means["rbo"] == found.coverage == 0


@settings(max_examples=50, deadline=None)
@given(both=BOTH)
def test_a_teacher_follows_itself(both) -> None:
    """A measure that is not perfect at equality, or leaves its range."""
    student, teacher = runs_of(both)
    for name, values in fidelity(teacher, teacher).per_query.items():
        for own in values.values():
            assert own == pytest.approx(0 if name == "kl" else 1, abs=1e-9)
    for name, values in fidelity(student, teacher).per_query.items():
        low = 0 if name in ("kl", "rbo", "overlap", "same_best") else -1
        high = math.inf if name == "kl" else 1
        for own in values.values():
            assert low <= own <= high + 1e-12


@settings(max_examples=50, deadline=None)
@given(both=BOTH)
def test_all_but_kl_are_symmetric(both) -> None:
    """A result that depends on who is called the teacher."""
    student, teacher = runs_of(both)
    names = [name for name in MEASURES if name != "kl"]
    one = fidelity(student, teacher, measures=names).per_query
    two = fidelity(teacher, student, measures=names).per_query
    for name in names:
        for query in one[name].keys() & two[name].keys():
            assert one[name][query] == pytest.approx(two[name][query], abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(both=BOTH)
def test_measures_of_order_ask_for_nothing_else(both) -> None:
    """A student on another scale than its teacher, punished by a measure of order."""
    student, teacher = runs_of(both)
    order = ["tau", "spearman", "rbo", "overlap", "same_best"]
    bent = Run.from_columns(
        student.table["query_id"],
        student.table["doc_id"],
        np.exp(student.table["score"].to_numpy()) - 3,
    )
    one, two = (fidelity(run, teacher, measures=order).per_query for run in (student, bent))
    for name in order:
        assert one[name] == pytest.approx(two[name], abs=1e-9)
    moved = Run.from_columns(
        student.table["query_id"],
        student.table["doc_id"],
        student.table["score"].to_numpy() + 16,
    )
    one, two = (fidelity(run, teacher, measures=["kl"]).per_query for run in (student, moved))
    assert one["kl"] == pytest.approx(two["kl"], abs=1e-9)


def test_arguments_are_checked() -> None:
    """A misspelt measure that is left out, or a temperature of 0 that gives NaN."""
    run = Run.from_dict({"q": {"a": 1.0, "b": 2.0}})
    with pytest.raises(ConfigError, match="Did you mean 'spearman'"):
        fidelity(run, run, measures=["spearmann"])
    for wrong in ({"k": 0}, {"p": 1.0}, {"p": math.nan}, {"student_temperature": 0.0}):
        with pytest.raises(ConfigError, match="must"):
            fidelity(run, run, **wrong)
    with pytest.raises(DataError, match="share no query"):
        fidelity(run, Run.from_dict({"z": {"a": 1.0}}))


def test_the_table_names_what_it_counts() -> None:
    """A column under the name of another measure."""
    run = Run.from_dict({"q": {"a": 1.0, "b": 2.0}})
    half = Run.from_dict({"q": {"a": 2.0, "b": 1.0, "c": 0.0}})
    found = {
        name: fidelity(r, run, measures=["kl", "overlap"], k=3)
        for name, r in (("same", run), ("half", half))
    }
    columns, rows = fidelity_table(found)
    assert columns == ["system", "KL", "overlap@3", "pooled margins", "compared", "shared"]
    assert rows[0] == ["same", "0.0000", "1.0000", "1.0000", "1", "100.0%"]
    assert rows[1][2:] == ["0.6667", "-1.0000", "1", "100.0%"]
