"""Which query comes next, which candidates come with it, and which are filtered before."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.data.datasets import Collection
from retrodistill.data.store.runs import Run
from retrodistill.stages.training.candidate_lists import CandidateLists
from retrodistill.stages.training.candidates import CandidateFilters, gather
from retrodistill.stages.training.examples import Schedule
from retrodistill.stages.training.sampling import (
    NEGATIVE_SAMPLINGS,
    QUERY_ORDERS,
    Traits,
    clustered,
    hard_first,
    importance,
    margin_bins,
    parse_negative_sampling,
    query_clusters,
    simans,
    uniform,
)

Random = np.random.default_rng


@pytest.fixture(scope="module")
def candidates(collection: Collection, scores: Run) -> CandidateLists:
    return gather(collection, "train", scores, pool=16)


def pool_of(gaps: list[float]) -> np.ndarray:
    """Return scores from 10 downwards."""
    return 10.0 - np.cumsum([0.0, *gaps])


# Orders


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=60),
    st.integers(1, 7),
    st.integers(0, 5),
    st.integers(0, 9),
)
def test_every_order_brings_every_query_once_an_epoch(
    clusters: list[int], batch_size: int, epoch: int, seed: int
) -> None:
    """A query that is never trained on, or twice as often as the others."""
    count = len(clusters)
    traits = Traits(
        margins=Random(seed).normal(size=count), batch_size=batch_size, clusters=np.array(clusters)
    )
    for name in QUERY_ORDERS:
        order = QUERY_ORDERS[name](traits, epoch * count, Random((seed, epoch)))
        assert sorted(order.tolist()) == list(range(count))


def test_batches_are_of_one_cluster_in_every_epoch() -> None:
    """Batches that are shifted against the clusters after the first epoch."""
    rng = Random(0)
    clusters = rng.integers(0, 5, 203)
    traits = Traits(margins=np.zeros(203), batch_size=8, clusters=clusters)
    epochs = [clustered(traits, 203 * epoch, Random((1, epoch))) for epoch in range(4)]
    drawn = np.concatenate(epochs)
    batches = drawn[: len(drawn) // 8 * 8].reshape(-1, 8)
    pure = (clusters[batches] == clusters[batches[:, :1]]).all(1)
    whole = sum(int(size) // 8 for size in np.bincount(clusters))
    assert pure.sum() >= 4 * (whole - 1)
    assert len({tuple(sorted(batch)) for batch in batches.tolist()}) == len(batches)


def test_hard_queries_come_first() -> None:
    """A curriculum upside down: the easiest queries first."""
    margins = np.array([3.0, -1.0, 0.5, 3.0])
    orders = {tuple(hard_first(Traits(margins=margins), 0, Random(seed))) for seed in range(20)}
    assert orders == {(1, 2, 0, 3), (1, 2, 3, 0)}


def test_clusters_are_those_of_the_vectors() -> None:
    """Clusters that have nothing to do with the topics, or that change on resuming."""
    rng = Random(0)
    topics = rng.integers(0, 4, 200)
    vectors = (10 * np.eye(4)[topics] + rng.normal(size=(200, 4))).astype(np.float32)
    clusters = query_clusters(vectors, 4, seed=3)
    assert len({*zip(clusters.tolist(), topics.tolist(), strict=True)}) == 4
    assert (clusters == query_clusters(vectors, 4, seed=3)).all()
    with pytest.raises(ConfigError, match="cannot form 201 clusters"):
        query_clusters(vectors, 201)


# Draws


@given(
    st.sampled_from(sorted(NEGATIVE_SAMPLINGS)),
    st.lists(st.floats(0, 30), max_size=40),
    st.integers(1, 45),
    st.integers(0, 99),
)
def test_every_draw_gives_distinct_places_and_finite_weights(
    name: str, gaps: list[float], count: int, seed: int
) -> None:
    """A document twice in a list, a list shorter than the pool allows, a weight that explodes."""
    pool = pool_of(gaps)
    positions, log_weights = NEGATIVE_SAMPLINGS[name](pool, 11.0, count, Random(seed))
    assert len(set(positions.tolist())) == len(positions) == min(count, len(pool))
    assert len(positions) == 0 or (positions.min() >= 0 and positions.max() < len(pool))
    assert log_weights.shape == positions.shape
    assert np.isfinite(log_weights).all()
    assert (log_weights >= -1e-12).all()


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(("step", "temperature"), [(0.0, 1.0), (0.2, 1.0), (2.0, 1.0), (2.0, 9.0)])
def test_importance_sums_have_the_whole_pools_as_their_mean(
    step: float, temperature: float, keep: float
) -> None:
    """A softmax over the drawn list that is not that of the whole list, run after run."""
    pool, student, random = pool_of([step] * 19), Random(1).normal(size=20), Random(2)
    draws = 1500
    sums, met = np.empty(draws), np.zeros(20)
    for number in range(draws):
        positions, weights = importance(pool, 11.0, 6, random, keep=keep, temperature=temperature)
        sums[number] = np.exp(weights + student[positions]).sum()
        met[positions] += np.exp(weights)
    assert abs(sums.mean() - np.exp(student).sum()) < 4 * sums.std() / draws**0.5
    assert met.sum() / draws == pytest.approx(20, abs=1.5)
    assert (met > 0).all()


def test_importance_keeps_the_teachers_best() -> None:
    """A teacher's best candidate that is missing from a list of its best."""
    pool = pool_of([0.1] * 30)
    for seed in range(50):
        positions, weights = importance(pool, 11.0, 8, Random(seed), keep=0.5)
        assert {0, 1, 2, 3} <= set(positions.tolist())
        assert (weights[positions < 4] == 0).all()
        assert (weights[positions >= 4] > 0).all()


def test_margin_bins_are_met_alike_however_full_they_are() -> None:
    """Draws that follow the pool: a thousand easy candidates for each hard one."""
    pool = np.concatenate([[9.0], np.linspace(1.0, 0.0, 300)])
    random = Random(0)
    hard = [margin_bins(pool, 10.0, 1, random)[0][0] == 0 for _ in range(1500)]
    # Nearly all of the others lie in the two bins from 0 to 1.8.
    assert np.mean(hard) == pytest.approx(1 / 3, abs=0.05)
    assert np.mean([uniform(pool, 10.0, 1, random)[0][0] == 0 for _ in range(1500)]) < 0.02
    assert set(margin_bins(np.full(4, 2.0), 3.0, 4, Random(0))[0]) == {0, 1, 2, 3}


def test_simans_draws_by_its_formula() -> None:
    """A sign or a square that is wrong: the easiest candidates are drawn most.

    Or a draw that is uniform for a teacher whose scores lie between 0 and 1.
    """
    pool, positive, a, b = np.array([6.0, 5.0, 4.0, 2.0]), 5.5, 0.5, -1.0
    chances = np.exp(-a * ((pool - positive) / pool.std() - b) ** 2)
    for scale in (1.0, 0.01):
        random = Random(0)
        drawn = [
            simans(scale * pool, scale * positive, 1, random, a=a, b=b)[0][0] for _ in range(8000)
        ]
        frequencies = np.bincount(drawn, minlength=4) / 8000
        np.testing.assert_allclose(frequencies, chances / chances.sum(), atol=0.02)
    assert simans(np.full(3, 2.0), 2.0, 3, Random(0))[0].size == 3
    far, _ = simans(np.array([1e4, -1e4, -2e4]), 0.0, 3, Random(0))
    assert set(far.tolist()) == {0, 1, 2}


def test_settings_of_a_draw_are_checked() -> None:
    """A misspelt setting that is ignored, or a bad one that stops a training on its way."""
    tuned = parse_negative_sampling("simans(a=0.5, b=-1)")
    pool = pool_of([1.0] * 9)
    expected = simans(pool, 11.0, 4, Random(0), a=0.5, b=-1.0)[0]
    assert tuned(pool, 11.0, 4, Random(0))[0].tolist() == expected.tolist()
    for text, message in (
        ("simans(c=1)", "has no setting 'c'"),
        ("simans(a=-1)", "a must be above 0"),
        ("simans(a=x)", "must be a number"),
        ("importance(keep=1)", "below 1"),
        ("importance(temperature=0)", "temperature above 0"),
        ("margin-bins(bins=0)", "at least 1"),
        ("uniform(a=1)", "has no setting 'a'"),
        ("margin-bin", "Did you mean 'margin-bins'"),
        ("simans(a=1", "not understood"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_negative_sampling(text)


# The schedule


@pytest.mark.parametrize("order", list(QUERY_ORDERS))
@pytest.mark.parametrize("sampling", list(NEGATIVE_SAMPLINGS))
def test_any_item_can_be_had_alone(candidates: CandidateLists, order: str, sampling: str) -> None:
    """A resumed training that draws other batches than the undisturbed one."""
    make = partial(
        Schedule,
        candidates,
        100,
        per_query=4,
        seed=3,
        query_order=order,
        negative_sampling=sampling,
        traits=Traits(
            margins=candidates.margins, batch_size=5, clusters=np.arange(len(candidates)) % 3
        ),
    )
    forward = list(make())
    assert {item.query for item in forward[:24]} == {item.query for item in forward[24:48]}
    for index in (99, 0, 57, 24):
        item = make()[index]
        assert item.query == forward[index].query
        assert (item.docs == forward[index].docs).all()
        assert (item.log_weights == forward[index].log_weights).all()
        assert item.labels.tolist() == [True, False, False, False]


def test_only_drawn_samples_have_weights(candidates: CandidateLists) -> None:
    """Weights of an importance draw that get lost, or that a plain draw makes up."""
    drawn = Schedule(candidates, 24, per_query=6, seed=0, negative_sampling="importance(keep=0.2)")
    assert all(item.log_weights[:2].tolist() == [0, 0] for item in drawn)
    assert any(item.log_weights.any() for item in drawn)
    plain = Schedule(candidates, 24, per_query=6, seed=0)
    assert not any(item.log_weights.any() for item in plain)


def test_a_schedule_that_needs_scores_says_so(
    collection: Collection, candidates: CandidateLists
) -> None:
    """A curriculum or a draw that silently is a random one."""
    unscored = gather(collection, "train", None, pool=16)
    make = partial(Schedule, length=10, per_query=4, seed=0)
    for changes in ({"query_order": "hard-first"}, {"negative_sampling": "simans"}):
        with pytest.raises(ConfigError, match="give --scores"):
            make(unscored, **changes)
    assert len(make(unscored)[0].docs) == 1
    with pytest.raises(ConfigError, match="needs the cluster of each query"):
        make(candidates, query_order="clusters")
    with pytest.raises(DataError, match="3 clusters given for 24 queries"):
        make(
            candidates,
            query_order="clusters",
            traits=Traits(margins=candidates.margins, clusters=np.zeros(3, np.int64)),
        )
    with pytest.raises(ConfigError, match="Did you mean 'hard-first'"):
        make(candidates, query_order="hardfirst")


# Filters while gathering


def by_id(collection: Collection, found: CandidateLists) -> dict[str, object]:
    return {collection.queries[chosen.query].id: chosen for chosen in found}


def test_gathered_columns_are_the_lists(collection: Collection, scores: Run) -> None:
    """Columns cut at the wrong places: one query's candidates under another's name."""
    relevant = collection.relevant("train")
    for chosen in gather(collection, "train", scores, pool=5):
        query = collection.queries[chosen.query].id
        query_scores = scores.to_dict()[query]
        pool = [doc for doc in query_scores if doc not in relevant[query]][:5]
        assert collection.docs.ids(chosen.pool) == pool
        assert collection.docs.ids(chosen.positives) == relevant[query]
        assert chosen.pool_scores.tolist() == [np.float32(query_scores[doc]) for doc in pool]
        assert chosen.positive_scores.tolist() == [
            np.float32(query_scores[d]) for d in relevant[query]
        ]
        assert chosen.relevant == set(chosen.positives.tolist())
    alone = Run.from_dict({"q3": {"d3": 1.0}, "q4": {"d4": 1.0, "d5": 0.0}})
    assert by_id(collection, gather(collection, "train", alone, pool=5)).keys() == {"q4"}


def test_margins_are_those_of_the_best(collection: Collection) -> None:
    """Difficulty read off the wrong candidate."""
    run = Run.from_dict({"q3": {"d3": 1.0, "d5": 4.0, "d6": 2.0}, "q4": {"d4": 3.0, "d5": 2.5}})
    assert gather(collection, "train", run, pool=5).margins.tolist() == [-3.0, 0.5]


def test_weak_queries_are_dropped_with_a_message(
    collection: Collection, scores: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """The best quarter that is dropped in place of the worst, or a silent loss of data."""
    best = {query: max(docs.values()) for query, docs in scores.to_dict().items()}
    strong = by_id(
        collection,
        gather(
            collection, "train", scores, pool=8, filters=CandidateFilters(drop_weak_queries=0.25)
        ),
    )
    weakest = sorted(best, key=best.__getitem__)[:6]
    assert strong.keys() == best.keys() - set(weakest)
    assert "6 queries are skipped: their best teacher score is below" in capsys.readouterr().err
    alike = Run.from_dict({query: {"d1": 1.0, "d2": 0.0, f"d{query[1:]}": 1.0} for query in best})
    all_alike = gather(
        collection, "train", alike, pool=8, filters=CandidateFilters(drop_weak_queries=0.5)
    )
    assert len(all_alike) == len(gather(collection, "train", alike, pool=8))


def test_candidates_as_good_as_the_positive_are_doubtful(
    collection: Collection, capsys: pytest.CaptureFixture[str]
) -> None:
    """Relevant documents that nobody labelled, pushed away as negatives."""
    run = Run.from_dict(
        {
            "q3": {"d3": 0.8, "d5": 0.9, "d6": 0.77, "d7": 0.7, "d8": 0.1},
            "q4": {"d4": 0.9, "d5": 0.2},
            "q99": {"d9": 0.5, "d1": 0.49},
        },
    )
    run = run.select(["q3", "q4"])
    lists = gather(collection, "train", run, pool=1, filters=CandidateFilters(false_negatives=0.95))
    candidates = by_id(collection, lists)
    assert sorted(collection.docs.ids(sorted(candidates["q3"].doubtful))) == ["d5", "d6"]
    assert candidates["q4"].doubtful == frozenset()
    assert "2 candidates of 1 queries score above 0.95" in capsys.readouterr().err
    (three,) = (item for item in Schedule(lists, 2, per_query=2, seed=0) if len(item.doubtful))
    assert collection.docs.ids(three.docs) == ["d3", "d5"]
    assert three.doubtful == candidates["q3"].doubtful
    assert not three.labels[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: CandidateFilters(false_negatives=0.9), "must start at 0, but the lowest is -2"),
        (lambda: CandidateFilters(false_negatives=-1.0), "must be above 0"),
        (lambda: CandidateFilters(drop_weak_queries=1.0), "from 0 to below 1"),
    ],
)
def test_filters_refuse_what_has_no_meaning(
    collection: Collection, change: Callable[[], CandidateFilters], message: str
) -> None:
    """0.95 of a negative logit, above which lie candidates that are worse than the positive."""
    logits = Run.from_dict({"q3": {"d3": -1.0, "d5": -2.0}})
    with pytest.raises(ConfigError, match=message):
        gather(collection, "train", logits, pool=8, filters=change())
    with pytest.raises(ConfigError, match="need teacher scores"):
        gather(collection, "train", None, pool=8, filters=CandidateFilters(drop_weak_queries=0.1))


def test_a_store_tells_its_scale(collection: Collection, scores: Run, tmp_path: Path) -> None:
    """Cosines that pass for logits because a store's manifest was not read."""
    from retrodistill.stages.scoring import store_scores

    store = store_scores(collection, scores, tmp_path / "s", scale="bm25")
    assert store.run().scale == store.run().top(3).scale == "bm25"
    assert store.run().select(["q3"]).scale == "bm25"
    assert scores.scale == "unknown"
