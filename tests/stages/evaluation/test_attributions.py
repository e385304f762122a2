"""Words that count for a model: by hand, and for models of the library."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.data.datasets import Collection
from retrodistill.stages.evaluation.attributions import (
    Scorer,
    drops,
    encoder_scorer,
    explanation_agreement,
    teacher_scorer,
)

PAIR = ("q", "red green blue")


def adding(weights: Mapping[str, float]) -> Scorer:
    """Return a model that adds up weights of words."""

    def score(query: str, texts: Sequence[str]) -> list[float]:
        assert query == "q"
        return [sum(weights.get(word, 0.0) for word in text.split()) for text in texts]

    return score


def test_drops_by_hand() -> None:
    """The sign turned, or the drop of another word."""
    weights = {"red": 3.0, "green": 0.5, "blue": -1.0}
    assert drops("q", PAIR[1].split(), adding(weights)).tolist() == [3.0, 0.5, -1.0]


def test_agreement_by_hand() -> None:
    """Another scale taken for disagreement, and an opposite student that agrees."""
    teacher = adding({"red": 3.0, "green": 0.5, "blue": -1.0})
    same = adding({"red": 900.0, "green": 2.0, "blue": 1.0})
    turned = adding({"red": -3.0, "green": -0.5, "blue": 1.0})
    half = adding({"red": 3.0, "green": -1.0, "blue": 0.5})
    for student, wanted in ((same, 1), (turned, -1), (half, 0.5), (adding({}), 0)):
        found = explanation_agreement([PAIR], teacher, student)
        assert found.mean == pytest.approx(wanted)
        assert found.words == 3


def test_what_has_no_order_has_no_value() -> None:
    """A mean that counts a document of one word, or a teacher that looks nowhere, as agreement."""
    teacher = adding({"red": 1.0})
    pairs = [("q", "red"), ("q", "black white"), ("q", ""), ("q", "red white")]
    found = explanation_agreement(pairs, teacher, teacher)
    assert found.values == [None, None, None, pytest.approx(1)]
    assert found.mean == pytest.approx(1)
    assert explanation_agreement(pairs[:3], teacher, teacher).mean is None


def test_long_documents_are_cut_for_both() -> None:
    """A document of ten thousand words that takes as many forward passes."""
    seen: list[int] = []

    def counting(query: str, texts: Sequence[str]) -> list[float]:
        seen.append(len(texts))
        return [float(len(text)) for text in texts]

    long = " ".join("x" * (1 + number % 7) for number in range(500))
    found = explanation_agreement([("q", long)], counting, counting, max_words=20)
    assert seen == [21, 21]
    assert found.words == 20
    assert found.mean == pytest.approx(1)


def test_models_of_the_library_fit(
    collection: Collection, tiny_model: Path, tmp_path: Path
) -> None:
    """Texts that a model mixes up, or documents of the collection scored in their place."""
    from fakes.models import save_tiny_cross_encoder

    from retrodistill.models.inference.options import ModelOptions
    from retrodistill.models.students.dense import DenseEncoder
    from retrodistill.models.teachers.cross_encoder import CrossEncoderTeacher
    from retrodistill.models.teachers.lexical import BM25Teacher

    query, words = collection.queries[0].full_text, collection.docs[0].full_text.split()
    shorter = [" ".join(words[:place] + words[place + 1 :]) for place in range(len(words))]
    encoder = DenseEncoder(str(tiny_model), precision="float32")
    vectors = encoder.encode_docs([" ".join(words), *shorter])
    scores = vectors @ encoder.encode_queries([query])[0]
    found = drops(query, words, encoder_scorer(encoder))
    np.testing.assert_allclose(found, scores[0] - scores[1:], atol=1e-5)
    model = str(save_tiny_cross_encoder(tmp_path / "cross"))
    teacher = CrossEncoderTeacher(model, ModelOptions(precision="float32"))
    scores = teacher._model.predict([(query, text) for text in [" ".join(words), *shorter]])
    found = drops(query, words, teacher_scorer(teacher))
    np.testing.assert_allclose(found, scores[0] - scores[1:], atol=1e-4)
    assert len(set(found.round(5))) > 1
    with pytest.raises(DataError, match="hold no id 'a text without word 0'"):
        drops(query, words, teacher_scorer(BM25Teacher("", collection)))


def test_broken_models_are_refused() -> None:
    """NaN, or one score for all texts, that turns into a number."""
    for wrong in ([1.0], [np.nan] * 4, np.zeros((4, 1))):
        with pytest.raises(DataError, match="one finite score"):
            explanation_agreement([PAIR], lambda query, texts, wrong=wrong: wrong, adding({}))
    with pytest.raises(ConfigError, match="at least 2"):
        explanation_agreement([PAIR], adding({}), adding({}), max_words=1)
