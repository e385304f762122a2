"""The teacher audit: every ranker on the same lists, and a bad one that is warned of."""

import json
from pathlib import Path

import numpy as np
import pytest

from retrodistill.audit import main
from retrodistill.base.config import MineSettings, TrainSettings
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.types import Pairs
from retrodistill.data.datasets import Collection
from retrodistill.data.store.runs import Run
from retrodistill.models.teachers.lexical import BM25Teacher
from retrodistill.models.teachers.runs import RunTeacher
from retrodistill.stages.mining import mine_candidates
from retrodistill.stages.scoring.audit import FIRST_STAGE, STUDENT, audit_teachers
from retrodistill.stages.training import train_student

NEGATED = '''
from retrodistill.models.teachers.lexical import BM25Teacher


class Negated(BM25Teacher):
    """BM25 with the worst document first."""

    def score(self, pairs):
        return -super().score(pairs)
'''


class Given:
    """A teacher of given numbers, whatever it is asked."""

    scale, unit, fingerprint = "logit", "pair", "given"

    def __init__(self, scores: np.ndarray) -> None:
        self.scores = scores

    def score(self, pairs: Pairs) -> np.ndarray:
        return self.scores


@pytest.fixture(scope="module")
def dense(collection: Collection, tiny_model: Path) -> Run:
    """A weak first stage: a random model's best half of sixty documents."""
    return mine_candidates(
        collection, "train", settings=MineSettings(retriever=(f"dense:{tiny_model}",), depth=30)
    )


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "negated_lab.py").write_text(NEGATED)
    monkeypatch.syspath_prepend(tmp_path)
    return "negated_lab:Negated"


def test_a_bad_teacher_is_warned_of_and_a_good_one_is_not(
    folder: Path,
    dense: Run,
    tiny_model: Path,
    module: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Days of scoring with a teacher that ranks worse than the student to train."""
    dense.write(tmp_path / "run")
    words = f"--data beir:{folder} --candidates {tmp_path / 'run'} --student {tiny_model} "
    words += (
        f"--split train --teacher bm25 --teacher {module} --queries 20 --json {tmp_path / 'a.json'}"
    )
    assert main(words.split()) == 0
    shown = capsys.readouterr()
    warned = [line for line in shown.err.splitlines() if line.startswith("warning: ")]
    assert len(warned) == 2
    audit = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    for line, baseline in zip(warned, (FIRST_STAGE, STUDENT), strict=True):
        assert line.startswith(f"warning: teacher {module} ranks worse than the {baseline}: ")
        p = next(
            row["p"]
            for row in audit["tests"]
            if (row["metric"], row["a"], row["b"]) == ("ndcg@10", baseline, module)
        )
        assert f"paired t test over 20 queries: p {p:.2g})." in line
    assert [f"warning: {line}" for line in audit["warnings"]] == warned
    systems = {row["name"]: row for row in audit["systems"]}
    assert list(systems) == [FIRST_STAGE, STUDENT, "bm25", module]
    assert len(systems["bm25"]["per_query"]["ndcg@10"]) == len(audit["queries"]) == 20
    assert systems["bm25"]["metrics"]["ndcg@10"] > systems[STUDENT]["metrics"]["ndcg@10"]
    assert f"{systems['bm25']['metrics']['mrr@10']:.4f}" in shown.out
    assert audit["config"]["depth"] == 20
    assert audit["agreement"][0]["tau"] == pytest.approx(-1)
    assert f"{audit['missed']} of {audit['relevant']} relevant documents" in shown.err
    assert audit["missed"] > 0


def test_everyone_ranks_the_same_lists(
    collection: Collection, dense: Run, tiny_model: Path
) -> None:
    """A positive that is added for one ranker alone, or a student that reads other texts."""
    from sentence_transformers import SentenceTransformer

    from retrodistill.models.students.dense import DenseEncoder

    student = DenseEncoder(str(tiny_model), precision="float32")
    teachers = {"bm25": BM25Teacher("", collection)}
    audit = audit_teachers(
        collection, "train", dense, teachers, student=student, queries=5, depth=7
    )
    expected = dense.select(audit.qrels).top(7)
    assert audit.runs[FIRST_STAGE].fingerprint == expected.fingerprint
    assert audit.baselines == [FIRST_STAGE, STUDENT]
    lists = expected.to_dict()
    for run in audit.runs.values():
        assert {q: set(docs) for q, docs in run.to_dict().items()} == {
            q: set(docs) for q, docs in lists.items()
        }
    relevant = collection.relevant("train")
    assert audit.relevant == 5
    assert audit.missed == sum(not set(relevant[query]) & set(lists[query]) for query in lists)
    model = SentenceTransformer(str(tiny_model), device="cpu")
    query, docs, scores = next(audit.runs[STUDENT].lists())
    texts = [collection.docs.get(doc).full_text for doc in docs]
    plain = model.encode_document(texts) @ model.encode_query(collection.queries.get(query).text)
    np.testing.assert_allclose(scores, plain, atol=1e-5)


def test_the_sample_is_of_labelled_queries_and_its_seed_counts(
    collection: Collection, dense: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Queries without labels that count 0 for everyone, or another sample at each call."""
    labelled = list(collection.qrels("train"))[:10]
    run = dense.select(labelled)
    samples = [
        list(audit_teachers(collection, "train", run, {}, queries=n, seed=seed).qrels)
        for n, seed in ((4, 0), (4, 0), (4, 1), (100, 0))
    ]
    assert samples[0] == samples[1] != samples[2]
    assert sorted(samples[3]) == sorted(labelled)
    assert f"{24 - 10} labelled queries have no list" in capsys.readouterr().err
    with pytest.raises(DataError, match="no labelled query of split 'test'"):
        audit_teachers(collection, "test", run, {})


def test_agreement_and_shapes_by_hand(collection: Collection) -> None:
    """Ties counted as agreement, or a mean over lists in which a teacher says nothing.

    Over q0, a and b share 4 of 6 pairs in order, one is tied in b, one is turned:
    tau-b = (4 - 1) / sqrt(6 * 5). In q1, b is constant.
    """
    rows = {"q0": ["d0", "d1", "d2", "d3"], "q1": ["d4", "d5", "d6"]}
    scores = {
        "a": {"q0": [4, 3, 2, 1], "q1": [3, 2, 1]},
        "b": {"q0": [3, 4, 2, 2], "q1": [5, 5, 5]},
    }
    runs = {
        name: Run.from_dict({q: dict(zip(rows[q], query_scores[q], strict=True)) for q in rows})
        for name, query_scores in scores.items()
    }
    teachers = {name: RunTeacher(run, scale="logit") for name, run in runs.items()}
    audit = audit_teachers(collection, "train", runs["a"], teachers, depth=10)
    (pair,) = audit.agreement
    assert (pair.a, pair.b, pair.lists) == ("a", "b", 1)
    assert pair.tau == pytest.approx(3 / 30**0.5)
    assert pair.same_first == 0  # q0: d0, d1; q1: d4, and of equal ones the last id
    shape = audit.teachers["b"]
    assert shape.quartiles == (2, 2.5, 4, 5, 5)
    assert shape.histogram == (2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 3)
    assert shape.bars == "▆    ▃    ▃    █"
    assert shape.ties == 5 / 7
    assert (shape.constant, shape.scale) == (1, "logit")
    assert audit.teachers["a"].constant == 0


def test_a_temperature_is_suggested_where_there_is_one(collection: Collection, dense: Run) -> None:
    """A temperature for another depth, or one for a teacher that cannot tell documents apart."""
    pairs = 24 * 20
    rng = np.random.default_rng(0)
    teachers = {
        "lively": Given(rng.normal(size=pairs).astype(np.float32)),
        "flat": Given(np.zeros(pairs, np.float32)),
    }
    audit = audit_teachers(collection, "train", dense, teachers, depth=20)
    calibration = audit.teachers["lively"].calibration
    assert calibration is not None
    assert calibration.target == 4
    assert calibration.perplexity == pytest.approx(4, rel=0.01)
    assert audit.teachers["flat"].calibration is None
    assert audit.teachers["flat"].constant == 24
    assert audit.agreement[0].tau is None


def test_what_cannot_be_audited_is_explained(collection: Collection, dense: Run) -> None:
    """Scores of shape (pairs, 1) that broadcast, NaN that ranks somewhere, a teacher of pairs."""
    for scores, message in (
        (np.zeros((480, 1), np.float32), r"shape \(480, 1\) for 480 pairs"),
        (np.zeros(3, np.float32), r"shape \(3,\) for 480 pairs"),
        (np.full(480, np.nan, np.float32), "teacher 't': row 1: score is nan"),
    ):
        with pytest.raises(DataError, match=message):
            audit_teachers(collection, "train", dense, {"t": Given(scores)})
    with pytest.raises(ConfigError, match="name of its own"):
        audit_teachers(collection, "train", dense, {STUDENT: BM25Teacher("", collection)})
    with pytest.raises(ConfigError, match="must score single documents"):
        audit_teachers(collection, "train", dense, {"duo": object()})


def test_a_teacher_that_was_trained_on_the_sample_is_measured_without_it(
    folder: Path,
    collection: Collection,
    dense: Run,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A teacher that has learned the sampled queries by heart, and is chosen for it."""
    settings = TrainSettings(objective="contrastive", max_steps=1, batch_size=2)
    train_student(collection, tiny_model, tmp_path / "t", split="test", settings=settings)
    train_student(collection, tiny_model, tmp_path / "u", split="train", settings=settings)
    dense.write(tmp_path / "run")
    words = f"--data beir:{folder} --candidates {tmp_path / 'run'} --split train --queries 20 "
    for name, unseen in (("t", 20), ("u", 0)):
        more = f"--teacher bi-encoder:{tmp_path / name} --json {tmp_path / 'a.json'}"
        assert main([*words.split(), *more.split()]) == 0
        assert "documents unseen in training" in capsys.readouterr().out
        audit = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
        assert audit["subsets"][1]["settings"]["queries"] == unseen
