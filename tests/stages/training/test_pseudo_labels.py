"""Labels from two thresholds on a teacher's scores."""

import dataclasses

import numpy as np
import pytest

from retrodistill.base.config import TrainSettings
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.data.datasets import Collection
from retrodistill.data.store.runs import Run
from retrodistill.objectives.objective import parse_objective
from retrodistill.stages.training.material import gather_material
from retrodistill.stages.training.pseudo_labels import probabilities, pseudo_labelled

SCORES = Run.from_dict(
    {
        "q1": {"d1": 0.95, "d2": 0.5, "d3": 0.05, "d4": 0.02},
        "q2": {"d1": 0.6, "d5": 0.08},
        "q3": {"d6": 0.3, "d7": 0.99, "d8": 0.01},
    }
)


def test_labels_above_negatives_below_nothing_between() -> None:
    """A candidate that the teacher is unsure of as a negative, or a label that is lost."""
    relevant, scores = pseudo_labelled({"q3": ["d6"]}, SCORES, above=0.9, below=0.1)
    assert relevant == {"q1": ["d1"], "q3": ["d6", "d7"]}
    remaining = {query: {*docs} for query, docs in scores.to_dict().items()}
    assert remaining == {"q1": {"d1", "d3", "d4"}, "q3": {"d6", "d7", "d8"}}
    _, scores = pseudo_labelled({}, SCORES, above=0.9, below=None)
    assert {*scores.to_dict()["q1"]} == {"d1", "d2", "d3", "d4"}
    with pytest.raises(DataError, match="no candidate of 3 queries has a probability above 0.995"):
        pseudo_labelled({}, SCORES, above=0.995, below=0.1)


def test_logits_go_through_the_sigmoid_and_cosines_are_refused() -> None:
    """A logit of 1 that is taken for certainty, or a cosine for a probability."""
    run = Run.from_dict({"q": {"a": 2.2, "b": 0.0, "c": -1000.0}})
    values = probabilities(dataclasses.replace(run, scale="logit"))
    assert values == pytest.approx([0.90025, 0.5, 0.0], abs=1e-5)
    for scale in ("unknown", "cosine", "bm25"):
        with pytest.raises(ConfigError, match="--label-above is a probability"):
            probabilities(dataclasses.replace(run, scale=scale))
    with pytest.raises(ConfigError, match="--label-above is a probability"):
        probabilities(dataclasses.replace(SCORES, scale="cosine"))


def test_queries_that_are_measured_get_no_pseudo_label(collection: Collection) -> None:
    """Test queries that are trained on because a teacher has labelled them."""
    queries = collection.queries.ids()
    docs = collection.docs.ids()
    rows = [(query, doc) for query in queries for doc in docs[:6]]
    values = np.tile([0.95, 0.01, 0.02, 0.03, 0.5, 0.04], len(queries))
    scores = Run.from_columns([row[0] for row in rows], [row[1] for row in rows], values)
    settings = TrainSettings(objective="contrastive", label_above=0.9, label_below=0.1)
    material = gather_material(
        collection, "train", scores, parse_objective("contrastive"), settings
    )
    trained = {*collection.queries.ids(material.queries)}
    assert trained
    assert not trained & {*collection.qrels("test")}
    assert material.lists is not None
    for query in material.lists:
        assert collection.docs.rows(docs[:1])[0] in query.positives
        assert collection.docs.rows(docs[4:5])[0] not in query.pool
        assert {*query.relevant} >= {*query.positives.tolist()}
    train = collection.relevant("train")
    for row, query in zip(material.queries, material.lists, strict=True):
        (name,) = collection.queries.ids([row])
        known = {*train.get(name, ()), docs[0]}
        assert {*collection.docs.ids(sorted(query.relevant))} == known


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_below": 0.1}, "--label-below needs --label-above"),
        ({"label_above": 0.1, "label_below": 0.9}, "the lower first"),
        ({"label_above": 0.9, "positives": "teacher"}, "goes with no --positives teacher"),
        ({"student_ranks": (2,)}, "--student-ranks are two ranks"),
        ({"student_ranks": (5, 2)}, "--student-ranks are two ranks"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, object], message: str) -> None:
    """Thresholds the wrong way round, which leave every candidate as both or none."""
    with pytest.raises(ConfigError, match=message):
        TrainSettings(**settings)  # type: ignore[arg-type]
