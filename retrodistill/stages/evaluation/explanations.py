"""Does a student score by the words that its teacher scores by? One word removed at a time."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retrodistill.base.calls import split_label
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.logging import log
from retrodistill.base.registry import TEACHERS
from retrodistill.base.types import Doc, Pairs, Qrels, Teacher, reads_of
from retrodistill.data.rankings.correlation import spearman
from retrodistill.data.rankings.segments import Floats, Segments
from retrodistill.stages.evaluation.significance import interval, resampled_means

if TYPE_CHECKING:
    from retrodistill.base.config.evaluate import MeasureSettings
    from retrodistill.data.datasets import Collection

WORD = re.compile(r"\w+(?:['’-]\w+)*")  # noqa: RUF001 - an apostrophe

WORDS = 64
"""Distinct words of a document, its first ones, that are removed in turn."""

TOP = 5
"""Most important words of a document that are compared."""

EXPLAINED = ("late-interaction", "bi-encoder", "pair-head", "sparse", "cross-encoder", "causal-lm")
"""Kinds of models that read any text, at no price but time."""

COLUMNS = ("system", "query's words", "document's words", f"top {TOP}", "by chance", "compared")


@dataclass(frozen=True, slots=True)
class WordPair:
    """A query and a document, and the words of each that are removed in turn."""

    query: Doc
    doc: Doc
    query_words: tuple[str, ...]
    doc_words: tuple[str, ...]

    @classmethod
    def of(cls, query: Doc, doc: Doc) -> "WordPair":
        """Return the pair; a text of one word has none to remove."""
        return cls(query, doc, distinct_words(query.full_text), distinct_words(doc.full_text))

    @property
    def name(self) -> str:
        """Both ids."""
        return f"{self.query.id} {self.doc.id}"

    @property
    def queries(self) -> list[Doc]:
        """The query as it is, and without each of its words."""
        return [self.query, *(without(self.query, word) for word in self.query_words)]

    @property
    def docs(self) -> list[Doc]:
        """The document as it is, and without each of its words."""
        return [self.doc, *(without(self.doc, word) for word in self.doc_words)]

    def __len__(self) -> int:
        return 1 + len(self.query_words) + len(self.doc_words)


@dataclass(frozen=True, slots=True)
class Importances:
    """By how much each word raises a model's score of a pair: the score with it, less without."""

    query: Floats
    doc: Floats


@dataclass(frozen=True, eq=False, slots=True)
class Agreement:
    """How far a student's and its teacher's explanations of the same pairs agree."""

    query: Mapping[str, float]
    """Pair -> Spearman's correlation of the importances of the query's words."""

    doc: Mapping[str, float]
    """Pair -> the same of the document's words."""

    top: Mapping[str, float]
    """Pair -> share of the teacher's TOP words of the document that are among the student's."""

    chance: Mapping[str, float]
    """Pair -> the share that TOP words drawn at random would have."""

    words: Mapping[str, Mapping[str, Sequence[str]]]
    """Pair -> the TOP words of the teacher, and of the student."""

    pairs: int
    """Pairs that were explained."""

    @property
    def means(self) -> dict[str, float | None]:
        """Measure -> mean over the pairs that it is defined for; None where there is none."""
        measures = {"query": self.query, "doc": self.doc, "top": self.top, "chance": self.chance}
        return {
            name: sum(values.values()) / len(values) if values else None
            for name, values in measures.items()
        }

    def to_dict(self, *, per_pair: bool = False) -> dict[str, Any]:
        """Return it as plain values, the single pairs' only if asked for."""
        counts = {"query": len(self.query), "doc": len(self.doc), "top": len(self.top)}
        plain: dict[str, Any] = {"measures": self.means, "compared": counts, "pairs": self.pairs}
        plain["intervals"] = {
            name: _interval(values) for name, values in (("query", self.query), ("doc", self.doc))
        }
        if per_pair:
            plain["per_pair"] = {
                "query": dict(self.query),
                "doc": dict(self.doc),
                "top": dict(self.top),
                "words": {pair: dict(words) for pair, words in self.words.items()},
            }
        return plain


def compare_explanations(
    collection: "Collection", qrels: Qrels, settings: "MeasureSettings"
) -> dict[str, Agreement]:
    """Return how far each student of --explain agrees with --explain-teacher, by its name.

    Raises:
        ConfigError: a model cannot be loaded, or does not score by the texts alone.
        DataError: no judged query has a relevant document in the collection.

    """
    from retrodistill.models.teachers import load_teacher

    assert settings.explain_teacher is not None
    pairs = sample_pairs(collection, qrels, settings.explain_pairs, seed=settings.seed)
    scores = sum(map(len, pairs))
    log.info(
        f"explanations: {len(pairs):,} pairs, {scores:,} scores by each of "
        f"{1 + len(settings.explain)} models."
    )
    teacher = importances(load_teacher(settings.explain_teacher, collection), pairs)
    return {
        name: agreement(pairs, importances(load_teacher(spec, collection), pairs), teacher)
        for name, spec in explained(settings.explain).items()
    }


def explained(specs: Sequence[str]) -> dict[str, str]:
    """Return the model of each `NAME=MODEL` or `MODEL`, by its name.

    Raises:
        ConfigError: a model reads no text, or two have one name.

    """
    named: dict[str, str] = {}
    for text in specs:
        label, spec = split_label(text)
        kind = spec.partition(":")[0]
        if kind in TEACHERS and kind not in EXPLAINED:
            raise ConfigError(
                f"{text!r} cannot be explained by removing words: take one of "
                f"{', '.join(EXPLAINED)}, each with :MODEL."
            )
        if (label or spec) in named:
            raise ConfigError(f"two models of --explain are named {label or spec}: NAME=MODEL.")
        named[label or spec] = spec
    return named


def sample_pairs(
    collection: "Collection", qrels: Qrels, count: int, *, seed: int = 0
) -> list[WordPair]:
    """Return up to `count` judged queries, drawn at random, each with its best judged document.

    Of documents of one grade it is the first in the judgements. So the pairs are the same for
    every system.

    Raises:
        DataError: there is none.

    """
    best: dict[str, str] = {}
    for query, grades in qrels.items():
        relevant = [doc for doc, grade in grades.items() if grade > 0]
        if relevant:
            best[query] = max(relevant, key=grades.__getitem__)
    rows = zip(
        collection.queries.find([*best]), collection.docs.find([*best.values()]), strict=True
    )
    judged = [(int(query), int(doc)) for query, doc in rows if min(query, doc) >= 0]
    if not judged:
        raise DataError(
            "no judged query has a relevant document in the collection, so there is no pair to "
            "explain. Omit --explain, or give the collection of these judgements."
        )
    drawn = np.random.default_rng(seed).permutation(len(judged))[:count]
    return [
        WordPair.of(collection.queries[judged[row][0]], collection.docs[judged[row][1]])
        for row in sorted(drawn.tolist())
    ]


def distinct_words(text: str) -> tuple[str, ...]:
    """Return the first WORDS distinct words of a text, in lower case; none of a single one."""
    words = tuple(dict.fromkeys(match[0].lower() for match in WORD.finditer(text)))[:WORDS]
    return words if len(words) > 1 else ()


def without(doc: Doc, word: str) -> Doc:
    """Return a text without a word, wherever it stands.

    It has an id of its own, so that nothing that is known of the whole text is taken for it.
    """

    def cut(text: str) -> str:
        parts, end = [], 0
        for match in WORD.finditer(text):
            if match[0].lower() == word:
                parts.append(text[end : match.start()].removesuffix(" "))
                end = match.end()
        return ("".join(parts) + text[end:]).strip()

    return Doc(f"{doc.id} without {word}", cut(doc.title), cut(doc.text))


def importances(model: Teacher, pairs: Sequence[WordPair]) -> list[Importances]:
    """Return what each word adds to a model's score of each pair.

    Raises:
        ConfigError: a score depends on more than the two texts.

    """
    if model.unit == "list" or reads_of(model) == "id":
        raise ConfigError(
            f"a {type(model).__name__} scores by more than the texts of a pair, so removing a "
            "word does not explain its scores. Take a model that reads one pair at a time."
        )
    if hasattr(model, "score_all"):  # a bi-encoder's `score` is of the collection's documents
        return [_of_grid(model, pair) for pair in pairs]
    variants = [
        (query, doc)
        for pair in pairs
        for query, doc in (
            *((query, pair.doc) for query in pair.queries),
            *((pair.query, doc) for doc in pair.docs[1:]),
        )
    ]
    queries, docs = zip(*variants, strict=True)
    scores = model.score(Pairs.of(queries, docs)).astype(np.float64)
    parts = np.split(scores, np.cumsum([len(pair) for pair in pairs])[:-1])
    ends = [1 + len(pair.query_words) for pair in pairs]
    return [
        Importances(part[0] - part[1:end], part[0] - part[end:])
        for end, part in zip(ends, parts, strict=True)
    ]


def _of_grid(model: Any, pair: WordPair) -> Importances:
    scores = model.score_all(pair.queries, pair.docs).astype(np.float64)
    return Importances(scores[0, 0] - scores[1:, 0], scores[0, 0] - scores[0, 1:])


def agreement(
    pairs: Sequence[WordPair], student: Sequence[Importances], teacher: Sequence[Importances]
) -> Agreement:
    """Return how far the importances of words agree, pair by pair.

    Spearman's correlation over a query's words, and over a document's. A text whose words the
    teacher gives one importance has no order, and is not compared; a student that gives all of
    them one agrees by 0. For a document of more than TOP words, the share of the TOP words of the
    teacher that are the student's, beside what chance would give: TOP over their number.

    It says which words a score rests on, not whether scores are alike: `fidelity` says that.

    Source: the agreement of explanations is that of Parchami-Araghi et al. 2024, "Good Teachers
    Explain", arXiv:2402.03119 (from its abstract), which trains for it, on images. Removing
    words, and the correlation of ranks, are ours.

    """
    query, doc = {}, {}
    top: dict[str, float] = {}
    chance: dict[str, float] = {}
    words: dict[str, dict[str, list[str]]] = {}
    for pair, learned, taught in zip(pairs, student, teacher, strict=True):
        if _has_order(taught.query):
            query[pair.name] = _spearman(learned.query, taught.query)
        if not _has_order(taught.doc):
            continue
        doc[pair.name] = _spearman(learned.doc, taught.doc)
        if len(taught.doc) > TOP:
            best = [_best(side.doc) for side in (taught, learned)]
            top[pair.name] = len({*best[0]} & {*best[1]}) / TOP
            chance[pair.name] = TOP / len(taught.doc)
            named = [[pair.doc_words[index] for index in indices] for indices in best]
            words[pair.name] = {"teacher": named[0], "student": named[1]}
    return Agreement(query, doc, top, chance, words, len(pairs))


def explanation_table(
    found: Mapping[str, Agreement],
) -> tuple[list[str], list[list[str | None]]]:
    """Return the columns, and the row of each student, of a table of means."""
    rows: list[list[str | None]] = []
    for name, result in found.items():
        means = result.means
        cells = [None if means[key] is None else f"{means[key]:.4f}" for key in means]
        for column, values in enumerate((result.query, result.doc)):
            if (bounds := _interval(values)) is not None:
                cells[column] = f"{cells[column]} [{bounds[0]:.3f}, {bounds[1]:.3f}]"
        rows.append([name, *cells, f"{len(result.doc):,} of {result.pairs:,}"])
    return [*COLUMNS], rows


def _interval(values: Mapping[str, float]) -> tuple[float, float] | None:
    """Return the 95 % bootstrap interval of a mean over pairs; None of a single pair."""
    return interval(resampled_means({"all": values})["all"]) if len(values) > 1 else None


def _has_order(values: Floats) -> bool:
    return len(values) > 1 and bool(values.max() > values.min())


def _spearman(student: Floats, teacher: Floats) -> float:
    lists = Segments(np.zeros(1, np.int64), np.array([len(teacher)]))
    return float(spearman(lists, student, teacher)[0])


def _best(values: Floats) -> list[int]:
    """Return the places of the TOP highest values; of equal ones the first."""
    indices: list[int] = np.argsort(-values, kind="stable")[:TOP].tolist()
    return indices
