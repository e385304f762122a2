"""A measurement while training is a real search, and leaves no trace."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.encoders import save_tiny_late_interaction, save_tiny_sparse
from fakes.models import save_tiny_cross_encoder, save_tiny_model
from fakes.training import PullApart, assert_equal, run, weights
from transformers import TrainerCallback

from retrodistill.base.config import IndexSettings, MineSettings
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.types import Pairs
from retrodistill.data.datasets import Collection
from retrodistill.data.rankings.metrics import evaluate, parse_metric
from retrodistill.models.students.cross_encoder import load_cross_encoder
from retrodistill.models.students.dense import DenseEncoder, load_bi_encoder
from retrodistill.models.students.late_interaction import load_late_interaction
from retrodistill.models.students.sparse import load_sparse_encoder
from retrodistill.stages.indexing import embed_collection
from retrodistill.stages.mining import mine_candidates
from retrodistill.stages.scoring import load_teacher
from retrodistill.stages.searching import Searcher, search_run
from retrodistill.stages.training import development
from retrodistill.stages.training.development import Development

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prompts = {"query": "find :", "document": "text :"}
    return save_tiny_model(tmp_path_factory.mktemp("m"), layers=2, prompts=prompts)


@pytest.mark.usefixtures("in_float32")
def test_the_value_is_that_of_a_search_of_the_saved_model(
    collection: Collection, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dev value of another ranking than the one that the student is later judged by."""
    index = embed_collection(
        collection,
        DenseEncoder(small_model),
        out=tmp_path / "i",
        settings=IndexSettings(index="exact"),
    )
    expected = search_run(Searcher.open(index), collection, "test", 10)
    monkeypatch.setattr(development, "BLOCK", 7)  # cuts at the block's end must not show
    measure = Development(collection, "test", "ndcg@10")
    model = load_bi_encoder(str(small_model), CPU)
    hits = measure.search(model)
    assert [row[:2] for row in hits.lists()] == [row[:2] for row in expected.lists()]
    scores = [np.concatenate([s for _, _, s in r.lists()]) for r in (hits, expected)]
    np.testing.assert_allclose(*scores, atol=1e-6)
    values = evaluate(collection.qrels("test"), expected, [parse_metric("ndcg@10")])["ndcg@10"]
    assert measure(model) == pytest.approx(np.mean(list(values.values())), abs=1e-12)
    assert 0 < measure(model) < 1


def test_documents_of_equal_score_come_in_the_order_of_the_tie_rule(
    collection: Collection, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collapsed student, all of whose scores are equal, that is praised by the corpus order."""
    monkeypatch.setattr(development, "BLOCK", 7)
    model = load_bi_encoder(str(small_model), CPU)
    for parameter in model.parameters():
        parameter.data.zero_()
    run_of_all = Development(collection, "test", "ndcg@10").search(model)
    highest = sorted((doc.id for doc in collection.docs), reverse=True)[:10]
    assert all(docs == highest for _, docs, _ in run_of_all.lists())


class Measuring(TrainerCallback):
    def __init__(self, measure: Development, task: PullApart) -> None:
        self.measure, self.task = measure, task
        self.values: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.values.append(self.measure(self.task.model))


def test_a_measurement_does_not_change_the_training(
    collection: Collection, small_model: Path, tmp_path: Path
) -> None:
    """A measurement that draws dropout masks, or leaves the model without dropout."""
    plain, measured = PullApart(small_model), PullApart(small_model)
    run(plain, tmp_path / "plain", steps=6)
    measuring = Measuring(Development(collection, "test"), measured)
    run(measured, tmp_path / "measured", steps=6, callbacks=[measuring])
    assert_equal(weights(plain), weights(measured))
    assert len(set(measuring.values)) > 1  # it saw the weights of each step


def test_a_model_is_unchanged_even_if_it_draws_random_numbers(
    collection: Collection, small_model: Path
) -> None:
    """A random number that is drawn while measuring, or a frozen part that gets dropout."""

    def noise(*_: Any) -> None:
        torch.rand(3)
        np.random.rand()
        random.random()

    model = load_bi_encoder(str(small_model), CPU).train()
    model[1].eval()
    model[0].register_forward_hook(noise)
    modes = {name: module.training for name, module in model.named_modules()}
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    Development(collection, "test")(model)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1][1] == np.random.get_state()[1]).all()
    assert before[1][2] == np.random.get_state()[2]
    assert before[2] == random.getstate()
    assert modes == {name: module.training for name, module in model.named_modules()}
    assert not any(parameter.grad is not None for parameter in model.parameters())


def test_a_pool_limits_the_search_to_its_documents_and_the_relevant_ones(
    collection: Collection, small_model: Path
) -> None:
    """A relevant document that cannot be found, or a pool that is searched in the wrong query."""
    pool = mine_candidates(collection, "test", settings=MineSettings(depth=5))
    measure = Development(collection, "test", "ndcg@10", pool=pool.top(3))
    expected = {doc for _, docs, _ in pool.top(3).lists() for doc in docs}
    expected |= {doc for docs in collection.relevant("test").values() for doc in docs}
    assert set(collection.docs.ids(measure.rows)) == expected
    assert len(expected) < len(collection.docs)
    model = load_bi_encoder(str(small_model), CPU)
    assert measure(model) >= Development(collection, "test", "ndcg@10")(model)
    with pytest.raises(DataError, match="none of the queries of split 'test'"):
        Development(
            collection,
            "test",
            pool=mine_candidates(collection, "train", settings=MineSettings(depth=5)),
        )


def test_a_sample_is_the_same_for_a_seed_and_counts_only_its_own_queries(
    collection: Collection, small_model: Path
) -> None:
    """A mean over all queries of the split, of which most were never searched for."""
    whole = Development(collection, "test", "recall@60")
    sample = Development(collection, "test", "recall@60", queries=3, seed=1)
    assert set(sample.query_ids) < set(whole.query_ids)
    assert len(sample.query_ids) == 3
    assert sample.query_ids == Development(collection, "test", queries=3, seed=1).query_ids
    model = load_bi_encoder(str(small_model), CPU)
    assert sample(model) == whole(model) == 1.0
    assert Development(collection, "test", queries=99).query_ids == whole.query_ids


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize("kind", ["sparse", "late-interaction", "cross-encoder"])
def test_students_of_other_kinds_score_as_their_teachers_do(
    kind: str, collection: Collection, tmp_path: Path
) -> None:
    """A student of another kind whose dev value is that of a wrong score."""
    save, load = {
        "sparse": (save_tiny_sparse, load_sparse_encoder),
        "late-interaction": (save_tiny_late_interaction, load_late_interaction),
        "cross-encoder": (save_tiny_cross_encoder, load_cross_encoder),
    }[kind]
    folder = save(tmp_path / "m")
    pool = mine_candidates(collection, "test", settings=MineSettings(depth=20))
    measure = Development(collection, "test", "recall@60", kind=kind, pool=pool)
    model = load(str(folder), CPU).train()
    hits = measure.search(model)
    assert model.training
    queries, docs, rows = [], [], []
    for query, doc_ids, _ in hits.lists():
        for doc in doc_ids:
            rows.append(len(rows))
            queries.append(collection.queries.get(query))
            docs.append(collection.docs.get(doc))
    pairs = Pairs(queries, docs, np.array(rows), np.array(rows))
    expected = load_teacher(f"{kind}:{folder}", collection).score(pairs)
    scores = np.concatenate([listed for _, _, listed in hits.lists()])
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)
    listed = 0 if kind == "cross-encoder" else len(measure.rows)
    assert listed in (0, len(hits) // len(hits.query_ids))


def test_mistakes_are_explained_before_training(collection: Collection) -> None:
    """A metric, split or kind that fails at the first measurement, an hour later."""
    with pytest.raises(ConfigError, match="unknown metric"):
        Development(collection, "test", "ndgc@10")
    with pytest.raises(ConfigError, match="has no split 'dev'"):
        Development(collection, "dev")
    with pytest.raises(ConfigError, match="give --scores"):
        Development(collection, "test", kind="cross-encoder")


def test_a_diverged_student_is_reported(collection: Collection, small_model: Path) -> None:
    """NaN scores that sort somewhere, and a training that runs on for hours."""
    model = load_bi_encoder(str(small_model), CPU)
    next(model.parameters()).data.fill_(float("nan"))
    with pytest.raises(DataError, match="--learning-rate"):
        Development(collection, "test")(model)
