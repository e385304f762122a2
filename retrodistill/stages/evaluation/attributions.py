"""Do teacher and student look at the same words? Score drops when one word is left out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.types import Doc, Pairs
from retrodistill.data.rankings.correlation import spearman
from retrodistill.data.rankings.segments import Floats, Segments

if TYPE_CHECKING:
    from retrodistill.base.types import Encoder, Teacher

Scorer: TypeAlias = "Callable[[str, Sequence[str]], Sequence[float] | np.ndarray]"
"""A function of a query and of texts that returns a score for each text."""


@dataclass(frozen=True, slots=True)
class ExplanationAgreement:
    """How alike two models weigh the words of documents."""

    values: Sequence[float | None]
    """Spearman's correlation of the drops, pair by pair; None where there is nothing to follow."""

    words: int
    """Words that were left out, all pairs together."""

    @property
    def mean(self) -> float | None:
        """Mean over the pairs that have a value; None if none has."""
        known = [value for value in self.values if value is not None]
        return float(np.mean(known)) if known else None


def explanation_agreement(
    pairs: Sequence[tuple[str, str]], teacher: Scorer, student: Scorer, *, max_words: int = 256
) -> ExplanationAgreement:
    """Return how alike teacher and student weigh the words of each (query, document) pair.

    A word's weight is the drop of the score when this one word is left out (occlusion); drops are
    compared by Spearman's correlation. A pair costs each model one text more than it has words,
    of which the first `max_words` count, as if the document ended there.

    A document of fewer than two words, or one whose words all weigh the same to the teacher, has
    no value. A student for whom they all weigh the same follows nothing: 0.

    Raises:
        ConfigError: `max_words` is below 2.
        DataError: a model does not give one finite score for each text.

    """
    if max_words < 2:
        raise ConfigError(f"max_words must be at least 2, but it is {max_words}.")
    values: list[float | None] = []
    total = 0
    for query, document in pairs:
        words = document.split()[:max_words]
        total += len(words)
        theirs = drops(query, words, teacher)
        if len(words) < 2 or np.ptp(theirs) == 0:
            values.append(None)
            continue
        whole = Segments(np.array([0]), np.array([len(words)]))
        values.append(float(spearman(whole, drops(query, words, student), theirs)[0]))
    return ExplanationAgreement(values, total)


def drops(query: str, words: Sequence[str], score: Scorer) -> Floats:
    """Return by how much the score falls when each word is left out, in the order of the words."""
    texts = [" ".join(words), *(" ".join([*words[:i], *words[i + 1 :]]) for i in range(len(words)))]
    scores = np.asarray(score(query, texts), np.float64)
    if scores.shape != (len(texts),) or not np.isfinite(scores).all():
        raise DataError(
            f"one finite score for each of {len(texts)} texts is wanted, but the model gave "
            f"shape {scores.shape}, {int(np.isfinite(scores).sum())} of them finite."
        )
    fallen: Floats = scores[0] - scores[1:]
    return fallen


def teacher_scorer(teacher: "Teacher") -> Scorer:
    """Return a teacher that reads what it is given (a cross-encoder, say) as a `Scorer`.

    One that looks its documents up by id (a bi-encoder, BM25, a run) knows none of these texts,
    and says so: give a bi-encoder as `encoder_scorer`.
    """

    def score(query: str, texts: Sequence[str]) -> np.ndarray:
        docs = [Doc(f"a text without word {n}", "", text) for n, text in enumerate(texts)]
        return teacher.score(Pairs.of([Doc("query", "", query)] * len(docs), docs))

    return score


def encoder_scorer(encoder: "Encoder") -> Scorer:
    """Return a bi-encoder's inner products as a `Scorer`."""

    def score(query: str, texts: Sequence[str]) -> np.ndarray:
        scores: np.ndarray = encoder.encode_docs(texts) @ encoder.encode_queries([query])[0]
        return scores

    return score
