"""The chooser ranks candidates as their vectors do, and measures what they cost."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from fakes.corpus import save_small_collection
from fakes.models import save_tiny_model
from sentence_transformers import SentenceTransformer

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.data.datasets import Collection, load_collection
from retrodistill.data.store.runs import Run
from retrodistill.models.students import choosing
from retrodistill.models.students.choosing import (
    RankedStudent,
    _sort_key,
    parse_candidate,
    rank_students,
)
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.models.students.reading import Reading
from retrodistill.models.students.transforms import keep_layers

FLOAT32 = Reading(precision="float32")
DOCS = [f"d{number}" for number in range(12)]


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    return load_collection(f"beir:{save_small_collection(tmp_path_factory.mktemp('small'))}")


@pytest.fixture(scope="module")
def scores(collection: Collection, tiny_model: Path) -> Run:
    """The tiny model's own scores of twelve documents for each of twelve queries."""
    return own_scores(collection, DenseEncoder(tiny_model, precision="float32"))


def own_scores(collection: Collection, encoder: DenseEncoder) -> Run:
    queries = [f"q{number}" for number in range(12)]
    rows = collection.queries.rows(queries), collection.docs.rows(DOCS)
    products = (
        encoder.encode_queries(collection.queries.full_texts(rows[0]))
        @ encoder.encode_docs(collection.docs.full_texts(rows[1])).T
    )
    return Run.from_dict(
        {
            q: dict(zip(DOCS, row.tolist(), strict=True))
            for q, row in zip(queries, products, strict=True)
        }
    )


def tau(left: dict[str, float], right: dict[str, float]) -> float:
    """Return the share of pairs in one order less that in the other; nothing is tied."""
    signs = [
        math.copysign(1, (left[a] - left[b]) * (right[a] - right[b]))
        for a, b in itertools.combinations(left, 2)
    ]
    return float(np.mean(signs))


def test_the_teacher_itself_comes_first(
    collection: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """Ids that are paired with another text's vector give an agreement near 0 for all."""
    stranger = save_tiny_model(tmp_path, seed=9)
    names = [str(stranger), str(tiny_model), f"{tiny_model}[0,2,5]"]
    ranking = rank_students(collection, names, scores, reading=FLOAT32)
    assert {row.name for row in ranking.rows} == set(names)
    best = ranking.rows[0]
    assert (best.name, best.agreement, best.lists) == (str(tiny_model), pytest.approx(1.0), 12)
    assert [row.agreement for row in ranking.rows] == sorted(
        (row.agreement for row in ranking.rows), reverse=True
    )
    assert ranking.queries == 12
    assert (best.ndcg, ranking.teacher_ndcg) == (None, None)


def test_agreement_and_ndcg_by_hand(collection: Collection, scores: Run, tiny_model: Path) -> None:
    """One relevant document at rank r: nDCG@10 is 1 / log2(r + 1), or 0 from rank 11 on."""
    small = keep_layers(SentenceTransformer(str(tiny_model), device="cpu"), (0, 2))
    (row,) = rank_students(
        collection, {"two layers": small}, scores, split="train", reading=FLOAT32
    ).rows
    student = own_scores(collection, DenseEncoder(small, precision="float32")).to_dict()
    teacher = scores.to_dict()
    assert row.agreement == pytest.approx(np.mean([tau(teacher[q], student[q]) for q in student]))
    ranks = [list(student[query]).index(f"d{query[1:]}") + 1 for query in student]
    gains = [1 / math.log2(rank + 1) if rank <= 10 else 0 for rank in ranks]
    assert row.ndcg == pytest.approx(np.mean(gains))


def test_costs(collection: Collection, scores: Run, tiny_model: Path, tmp_path: Path) -> None:
    """Megabytes are those of the saved weights; a speed is of the texts that were encoded."""
    small = keep_layers(SentenceTransformer(str(tiny_model), device="cpu"), (0,))
    small.save(str(tmp_path), create_model_card=False)
    ranking = rank_students(collection, {"one": str(tmp_path), "all": str(tiny_model)}, scores)
    rows = {row.name: row for row in ranking.rows}
    size = (tmp_path / "model.safetensors").stat().st_size
    assert rows["one"].megabytes == pytest.approx(size / 1e6, rel=0.03)
    assert rows["one"].megabytes < rows["all"].megabytes
    assert rows["one"].texts_per_second > 0
    assert rows["one"].dimension == 32


def test_the_sample(collection: Collection, scores: Run, tiny_model: Path) -> None:
    """The first documents of each list alone are the hard ones: a student would look worse."""
    sample = choosing._sample(collection, scores, 5, 4, seed=0)
    lists = scores.to_dict()
    assert len(sample.lists) == 5
    for query, docs in sample.lists.items():
        assert list(docs) == [list(lists[query])[rank] for rank in (0, 4, 7, 11)]
    assert choosing._sample(collection, scores, 5, 4, seed=0).lists == sample.lists
    assert choosing._sample(collection, scores, 5, 4, seed=1).lists != sample.lists


def test_the_rule() -> None:
    def row(name: str, agreement: float | None, speed: float) -> RankedStudent:
        return RankedStudent(name, agreement, 1, None, speed, 1.0, 8)

    rows = [
        row("untold", None, 9),
        row("against", -0.5, 9),
        row("slow", 0.5, 1),
        row("b", 0.5, 2),
        row("a", 0.5, 2),
        row("best", 0.6, 1),
    ]
    assert [r.name for r in sorted(rows, key=_sort_key)] == [
        "best",
        "a",
        "b",
        "slow",
        "against",
        "untold",
    ]


def test_the_table(collection: Collection, scores: Run, tiny_model: Path) -> None:
    ranking = rank_students(collection, {"tiny": str(tiny_model)}, scores, queries=3)
    title, row = str(ranking).splitlines()
    assert title.split() == ["student", "tau-b", "nDCG@10", "texts/s", "MB", "dims"]
    assert row.split()[:3] == ["tiny", f"{ranking.rows[0].agreement:.3f}", "-"]
    assert ranking.to_dict()["rows"][0]["name"] == "tiny"
    assert "agreement" in ranking.to_dict()["rule"]


def test_constant_lists_do_not_count(collection: Collection, tiny_model: Path) -> None:
    """The tau of a list of ties is NaN, and one NaN is the mean."""
    scores = Run.from_dict({"q0": {"d0": 1, "d1": 1}, "q1": {"d0": 2, "d1": 1}})
    (row,) = rank_students(collection, [str(tiny_model)], scores).rows
    assert row.lists == 1
    assert abs(row.agreement) == 1
    (row,) = rank_students(collection, [str(tiny_model)], scores.select(["q0"])).rows
    assert (row.agreement, row.lists) == (None, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a/b", ("a/b", None)), ("a/b[0,2]", ("a/b", (0, 2))), ("x[1]y", ("x[1]y", None))],
)
def test_parse_candidate(text: str, expected) -> None:
    assert parse_candidate(text) == expected


def test_mistakes(collection: Collection, scores: Run, tiny_model: Path) -> None:
    name = str(tiny_model)
    with pytest.raises(ConfigError, match="at least one candidate, each once"):
        rank_students(collection, [], scores)
    with pytest.raises(ConfigError, match="each once"):
        rank_students(collection, [name, name], scores)
    with pytest.raises(ConfigError, match="0,2,5"):
        rank_students(collection, [f"{name}[a]"], scores)
    with pytest.raises(ConfigError, match="6 layers"):
        rank_students(collection, [f"{name}[7]"], scores)
    with pytest.raises(ConfigError, match="docs_per_query=1"):
        rank_students(collection, [name], scores, docs_per_query=1)
    with pytest.raises(DataError, match="no query of these scores has two documents"):
        rank_students(collection, [name], scores.top(1))
    with pytest.raises(DataError, match="nowhere"):
        rank_students(collection, [name], Run.from_dict({"q0": {"nowhere": 1, "d1": 0}}))
