"""Which words scores rest on: by hand, by models that say so, and by what it costs."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from fakes.encoders import save_tiny_late_interaction, save_tiny_sparse
from fakes.models import save_tiny_cross_encoder, save_tiny_model
from numpy.typing import NDArray

from retrodistill import evaluate as evaluate_verb
from retrodistill import report as report_verb
from retrodistill.base.config import EvaluateConfig
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.types import Doc, Pairs, Unit
from retrodistill.data.datasets import Collection
from retrodistill.data.store.runs import Run
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.models.students.pair_head import PairHead
from retrodistill.models.teachers import load_teacher
from retrodistill.stages.evaluation.explanations import (
    WORDS,
    Importances,
    WordPair,
    agreement,
    distinct_words,
    explained,
    explanation_table,
    importances,
    sample_pairs,
    without,
)
from retrodistill.stages.evaluation.fidelity import fidelity


class ByWords:
    """Scores a pair by the weights of the words that both texts have."""

    unit: Unit = "pair"
    fingerprint = "words"
    scale = "dot"

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.weights = weights
        self.scored = 0

    def score(self, pairs: Pairs) -> NDArray[np.float32]:
        self.scored += len(pairs)
        scores = []
        for query, doc in zip(pairs.query_rows, pairs.doc_rows, strict=True):
            words = {*distinct_words(f"{pairs.queries[query].full_text} x y")}
            own = {*distinct_words(f"{pairs.docs[doc].full_text} x y")}
            scores.append(sum(self.weights.get(word, 0.0) for word in words & own))
        return np.array(scores, np.float32)


PAIR = WordPair.of(
    Doc("q", "", "heart disease risk"),
    Doc("d", "Heart", "Disease of the heart; the risk is low, disease spreads"),
)


def test_a_word_is_removed_wherever_it_stands() -> None:
    """A title that still says it; a word within another; the second of two places."""
    assert PAIR.doc_words == ("heart", "disease", "of", "the", "risk", "is", "low", "spreads")
    cut = without(PAIR.doc, "disease")
    assert (cut.title, cut.text) == ("Heart", "of the heart; the risk is low, spreads")
    assert without(PAIR.doc, "heart").title == ""
    assert without(Doc("d", "", "art of the heart"), "art").text == "of the heart"
    assert cut.id != PAIR.doc.id
    assert without(Doc("d", "", "two\n\nlines of text"), "of").text == "two\n\nlines text"
    assert distinct_words("alone") == distinct_words("") == ()
    assert distinct_words("don't re-use Don't") == ("don't", "re-use")
    assert len(distinct_words(" ".join(f"w{n}" for n in range(200)))) == WORDS


def test_importance_is_what_the_score_loses() -> None:
    """A sign turned round; a document's words for a query's; the pair as it is forgotten."""
    model = ByWords({"heart": 2.0, "disease": -1.0})
    (found,) = importances(model, [PAIR])
    assert found.query.tolist() == [2.0, -1.0, 0.0]
    assert found.doc.tolist() == [2.0, -1.0, 0, 0, 0, 0, 0, 0]
    assert model.scored == len(PAIR) == 1 + 3 + 8


def test_agreement_by_hand() -> None:
    """Ranks 1, 2, 3 against 1, 3, 2: 0.5. Of five best words of seven four are shared: 0.8."""
    pair = WordPair.of(Doc("q", "", "a b c"), Doc("d", "", "a b c d e f g"))
    teacher = Importances(np.array([3.0, 2.0, 1.0]), np.array([7.0, 6, 5, 4, 3, 2, 1]))
    student = Importances(np.array([9.0, 1.0, 2.0]), np.array([7.0, 6, 5, 4, 2, 3, 1]))
    found = agreement([pair], [student], [teacher])
    assert found.query == {"q d": pytest.approx(0.5)}
    assert found.top == {"q d": 0.8}
    assert found.chance == {"q d": pytest.approx(5 / 7)}
    assert found.words["q d"]["student"] == ["a", "b", "c", "d", "f"]
    same = agreement([pair], [teacher], [teacher])
    assert same.means == pytest.approx({"query": 1, "doc": 1, "top": 1, "chance": 5 / 7})


def test_what_has_no_order_is_not_compared() -> None:
    """A mean that texts of one word, or a constant teacher, pull up or down."""
    pair = WordPair.of(Doc("q", "", "one"), Doc("d", "", "a b c"))
    flat = Importances(np.zeros(0), np.zeros(3))
    slope = Importances(np.zeros(0), np.array([1.0, 2.0, 3.0]))
    found = agreement([pair, PAIR], [slope, slope], [flat, slope])
    assert found.query == {}
    assert list(found.doc) == ["q d"]
    assert found.means["top"] is None
    assert agreement([pair], [flat], [slope]).doc == {"q d": 0.0}
    (row,) = explanation_table({"kl": found})[1]
    assert row == ["kl", None, "1.0000", None, None, "1 of 2"]


def test_equal_rankings_may_rest_on_other_words() -> None:
    """Fidelity by another name: here it is perfect, and the words are each other's opposites."""
    query = Doc("q", "", "heart disease")
    docs = {"d1": "heart disease", "d2": "neither of them"}
    first, second = ByWords({"heart": 2.0, "disease": 1.0}), ByWords({"heart": 1.0, "disease": 2.0})
    pairs = Pairs.of([query] * 2, [Doc(id, "", text) for id, text in docs.items()])
    runs = [
        Run.from_dict({"q": dict(zip(docs, model.score(pairs).tolist(), strict=True))})
        for model in (first, second)
    ]
    assert fidelity(*runs).means["tau"] == 1.0
    one = [WordPair.of(query, Doc("d1", "", docs["d1"]))]
    found = agreement(one, importances(first, one), importances(second, one))
    assert found.query == found.doc == {"q d1": -1.0}


def test_pairs_are_judged_ones_and_the_same_for_a_seed(collection: Collection) -> None:
    """Pairs that a system chose itself; documents of grade 0; queries that differ by run."""
    qrels = {"q0": {"d3": 0, "d0": 1, "d1": 2}, "q1": {"d1": 0}, "q2": {"gone": 1, "d2": 1}}
    assert [pair.name for pair in sample_pairs(collection, qrels, 9)] == ["q0 d1"]
    test = collection.qrels("test")
    drawn = [pair.name for pair in sample_pairs(collection, test, 3, seed=1)]
    assert len(drawn) == 3
    assert drawn == [pair.name for pair in sample_pairs(collection, test, 3, seed=1)]
    with pytest.raises(DataError, match="no pair to explain"):
        sample_pairs(collection, {"q1": {"d1": 0}}, 3)


@pytest.mark.parametrize("kind", ["bi-encoder", "cross-encoder"])
def test_a_model_agrees_with_itself(kind: str, tmp_path: Path, collection: Collection) -> None:
    """Scores put to the wrong words by batches sorted by length, or looked up by the document's id.

    A bi-encoder keeps the vectors of the collection's documents, which no removed word changes.
    """
    save = save_tiny_model if kind == "bi-encoder" else save_tiny_cross_encoder
    model = load_teacher(f"{kind}:{save(tmp_path / 'm')}", collection, precision="float32")
    pairs = sample_pairs(collection, collection.qrels("test"), 3)
    found = importances(model, pairs)
    assert agreement(pairs, found, found).means["doc"] == pytest.approx(1.0)
    whole, changed, query = pairs[1].doc, pairs[1].docs[-1], pairs[1].query
    if kind == "bi-encoder":
        encoder = DenseEncoder(tmp_path / "m" / "model", precision="float32")
        vectors = encoder.encode_docs([whole.full_text, changed.full_text])
        scores = vectors @ encoder.encode_queries([query.full_text])[0]
    else:
        scores = model.score(Pairs.of([query] * 2, [whole, changed]))
    assert abs(scores[0] - scores[1]) > 1e-3
    assert found[1].doc[-1] == pytest.approx(scores[0] - scores[1], abs=1e-5)


@pytest.mark.parametrize("kind", ["pair-head", "late-interaction", "sparse"])
def test_every_kind_that_reads_texts_is_explained(
    kind: str, tmp_path: Path, collection: Collection
) -> None:
    """A kind that is allowed and fails, or whose changed texts are those of the collection."""
    if kind == "pair-head":
        saved = save_tiny_model(tmp_path / "m", layers=1)
        PairHead(32).save(saved)
    else:
        saved = {"sparse": save_tiny_sparse, "late-interaction": save_tiny_late_interaction}[kind](
            tmp_path / "m"
        )
    model = load_teacher(f"{kind}:{saved}", collection, precision="float32")
    pairs = sample_pairs(collection, collection.qrels("test"), 2)
    for pair, found in zip(pairs, importances(model, pairs), strict=True):
        assert found.query.shape == (len(pair.query_words),)
        assert found.doc.shape == (len(pair.doc_words),)
        assert found.doc.any()


def test_what_does_not_read_pairs_of_texts_is_refused() -> None:
    """Importances of 0 from scores that are looked up by id; lists of one document."""
    for spec in ("bm25", "run:x", "llm:gpt"):
        with pytest.raises(ConfigError, match="cannot be explained"):
            explained([spec])
    assert explained(["kl=bi-encoder:a", "my_lab.teachers:Haiku"]) == {
        "kl": "bi-encoder:a",
        "my_lab.teachers:Haiku": "my_lab.teachers:Haiku",
    }
    with pytest.raises(ConfigError, match="are named a"):
        explained(["a=bi-encoder:x", "a=bi-encoder:y"])
    listwise = ByWords({})
    listwise.unit = "list"
    with pytest.raises(ConfigError, match="more than the texts"):
        importances(listwise, [PAIR])
    for missing in ({"explain": ("a",)}, {"explain_teacher": "b"}):
        with pytest.raises(ConfigError, match="give both"):
            EvaluateConfig(data="beir:x", run=(Path("r"),), **missing)
    with pytest.raises(ConfigError, match="--explain needs --data"):
        EvaluateConfig(qrels=Path("q"), run=(Path("r"),), explain=("a",), explain_teacher="b")


def test_it_is_off_unless_asked_for_and_says_what_it_costs(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hours of a teacher's passes behind a table; a table that is not in the JSON or the report."""
    student = save_tiny_model(tmp_path / "student", layers=1)
    teacher = save_tiny_cross_encoder(tmp_path / "teacher")
    run = tmp_path / "kl"
    Run.from_dict({"q24": {"d24": 1.0, "d1": 0.5}}).write(run)
    words = f"--data beir:{folder} --run {run} --json {tmp_path / 'r.json'} --test none".split()
    assert evaluate_verb.main(words) == 0
    assert "explanations" not in json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    asked = ["--explain", f"kl=bi-encoder:{student}", "--explain", f"ce=cross-encoder:{teacher}"]
    asked += ["--explain-teacher", f"cross-encoder:{teacher}", "--explain-pairs", "3"]
    capsys.readouterr()
    assert evaluate_verb.main([*words, *asked, "--per-query"]) == 0
    shown = capsys.readouterr()
    # four words of each query, twelve of each document
    assert "3 pairs, 51 scores by each of 3 models" in shown.err
    assert "explanations beside" in shown.out
    found = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["explanations"]
    assert found["ce"]["measures"]["doc"] == pytest.approx(1.0)
    assert -1 <= found["kl"]["measures"]["doc"] < 1
    assert len(found["kl"]["per_pair"]["words"]) == 3
    out = tmp_path / "report"
    named = ["--data", f"beir:{folder}", "--run", str(run), "--test", "none", "--out", str(out)]
    assert report_verb.main([*named, *asked]) == 0
    assert "What scores rest on" in (out / "report.html").read_text(encoding="utf-8")
    assert r"\label{tab:explanations}" in (out / "report.tex").read_text(encoding="utf-8")
    assert evaluate_verb.main([*words, "--explain", "bm25", "--explain-teacher", "bm25"]) == 2
    assert "cannot be explained" in capsys.readouterr().err
