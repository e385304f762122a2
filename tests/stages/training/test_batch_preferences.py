"""Preferences of a store, laid out for the lists of a batch."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from retrodistill.base.errors import DataError
from retrodistill.data.datasets import Collection
from retrodistill.data.store.runs import Run
from retrodistill.data.store.scores import PreferenceStore
from retrodistill.models.students.batches import TrainingExample
from retrodistill.stages.training.candidates import gather
from retrodistill.stages.training.examples import Schedule
from retrodistill.stages.training.sources.preferences import Preferences

EDGES = [
    ("q3", "d3", "d5", 0.9),
    ("q3", "d6", "d3", 0.2),
    ("q3", "d5", "d3", 0.25),  # the other direction of the first, which does not quite agree
    ("q4", "d3", "d5", 0.3),
    ("q4", "d7", "d4", 1.0),
]


class Edges(PreferenceStore):
    """A store whose edges are given."""

    def __init__(self, rows: list[tuple[str, str, str, float]]) -> None:
        self._rows = rows

    def edges(self) -> pa.Table:
        *ids, p = zip(*self._rows, strict=True)
        columns = [pa.chunked_array([list(column)], pa.string()) for column in ids]
        log_p = pa.chunked_array([np.log(p)], pa.float32())
        return pa.table([*columns, log_p], names=["query_id", "doc_id", "other_id", "log_p"])


def example_of(collection: Collection, query: str, docs: list[str]) -> TrainingExample:
    """Return the first example of a query whose candidates are these, best first."""
    run = Run.from_dict({query: {doc: -float(rank) for rank, doc in enumerate(docs)}})
    lists = gather(collection, "train", run, pool=9)
    return Schedule(lists, 1, per_query=9, seed=0)[0]


def test_preferences_stand_where_their_documents_do(collection: Collection) -> None:
    """A preference of another query's, between other documents, or with its sign turned."""
    preferences = Preferences(Edges(EDGES), collection)
    examples = [
        example_of(collection, "q3", ["d3", "d5", "d6", "d8"]),
        example_of(collection, "q4", ["d4", "d7"]),
        example_of(collection, "q5", ["d5", "d3"]),
    ]
    signals = preferences(examples)
    values, mask = signals["preferences"].numpy(), signals["preference_mask"].numpy()
    assert values.shape == mask.shape == (3, 4, 4)
    stored = {(query, doc, opponent): p for query, doc, opponent, p in EDGES}
    mirrored = {(q, b, a): 1 - p for (q, a, b), p in stored.items()}
    expected = mirrored | stored
    for row, example in enumerate(examples):
        query = collection.queries[example.query].id
        docs = collection.docs.ids(example.docs)
        for i in range(4):
            for j in range(4):
                key = (query, *(docs[k] if k < len(docs) else "" for k in (i, j)))
                assert mask[row, i, j] == (key in expected)
                if mask[row, i, j]:
                    assert np.exp(values[row, i, j]) == pytest.approx(expected[key], abs=1e-6)
    assert np.isfinite(values).all()


def test_batches_without_a_compared_pair_are_told_once(
    collection: Collection, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of the batches teaching nothing without a word, or a line for each of them."""
    preferences = Preferences(Edges(EDGES), collection)
    example = example_of(collection, "q5", ["d5", "d3"])
    for _ in range(3):
        assert not preferences([example])["preference_mask"].any()
    preferences([example_of(collection, "q4", ["d4", "d7"])])
    assert capsys.readouterr().err.count("no compared pair") == 1


def test_preferences_of_nothing_in_a_training_are_refused_at_its_start(
    collection: Collection,
) -> None:
    """A whole training at a loss of 0, with preferences between documents that it never sees."""
    run = Run.from_dict({"q3": {"d3": 2.0, "d8": 1.0}, "q5": {"d5": 2.0, "d3": 1.0}})
    candidates = gather(collection, "train", run, pool=9)
    preferences = Preferences(Edges(EDGES), collection)
    with pytest.raises(DataError, match="compare no two candidates of any query"):
        preferences.check(candidates)
    more = Run.from_dict({"q3": {"d3": 2.0, "d8": 1.0, "d5": 0.0}})
    preferences.check(gather(collection, "train", more, pool=9))


def test_preferences_of_another_collection_are_refused(collection: Collection) -> None:
    """A store whose ids mean other texts, and that silently gives nothing."""
    with pytest.raises(DataError, match="hold no id 'd999'"):
        Preferences(Edges([("q3", "d3", "d999", 0.5)]), collection)


def test_a_real_store_is_read(collection: Collection, tmp_path: Path) -> None:
    """A store whose columns have other names than a test's."""
    from retrodistill.base.types import Comparisons
    from retrodistill.stages.scoring import compare_candidates

    class Certain:
        fingerprint = "certain"

        def compare(self, comparisons: Comparisons) -> np.ndarray:
            return np.full(len(comparisons), np.log(0.75), np.float32)

    run = Run.from_dict({"q3": {"d3": 3.0, "d5": 2.0, "d6": 1.0}})
    store = compare_candidates(collection, run, Certain(), tmp_path / "p", opponents=0)
    (example,) = Schedule(gather(collection, "train", run, pool=9), 1, per_query=3, seed=0)
    signals = Preferences(store, collection)([example])
    mask = signals["preference_mask"][0].numpy()
    assert (mask == ~np.eye(3, dtype=bool)).all()
    p = np.exp(signals["preferences"][0].numpy())
    np.testing.assert_allclose((p + p.T)[mask], 1.0, atol=1e-6)
