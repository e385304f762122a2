"""Which student to train: agreement with the teacher, speed and size, before any training."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.data.rankings.metrics import Metric, evaluate
from retrodistill.data.store.runs import Run
from retrodistill.models.inference import pick_device
from retrodistill.models.students.dense import DenseEncoder, load_bi_encoder
from retrodistill.models.students.layers import keep_layers, parse_layers
from retrodistill.models.students.reading import DEFAULT, Reading

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from retrodistill.base.types import Qrels
    from retrodistill.data.datasets import Collection

NDCG = Metric("ndcg", 10)

RULE = "highest agreement first; of equal ones the faster, then the name"


@dataclass(frozen=True, slots=True)
class RankedStudent:
    """What was measured of one student before its training."""

    name: str

    agreement: float | None
    """Mean of Kendall's tau-b with the teacher, over the lists in which both tell documents apart;
    None: there are no such lists."""

    lists: int
    """Lists that `agreement` is the mean of."""

    ndcg: float | None
    """Mean nDCG@10 of the lists, over the sampled queries with a relevant document; None: none."""

    texts_per_second: float
    """Documents of the sample encoded a second, on this machine."""

    megabytes: float
    """Size of the weights."""

    dimension: int
    """Numbers in a vector."""


@dataclass(frozen=True, slots=True)
class StudentRanking:
    """Students side by side, the most promising one first."""

    rows: Sequence[RankedStudent]

    queries: int
    """Queries of the sample."""

    teacher_ndcg: float | None
    """The teacher's own nDCG@10 of the same lists."""

    rule: str = RULE
    """What `rows` are sorted by."""

    def to_dict(self) -> dict[str, Any]:
        """Return the table as JSON takes it."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the table as aligned text."""
        titles = ("student", "tau-b", f"nDCG@{NDCG.cutoff}", "texts/s", "MB", "dims")
        cells = [titles] + [
            (
                row.name,
                _shown(row.agreement),
                _shown(row.ndcg),
                f"{row.texts_per_second:.0f}",
                f"{row.megabytes:.1f}",
                str(row.dimension),
            )
            for row in self.rows
        ]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join(
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in cells
        )


def rank_students(
    collection: "Collection",
    candidates: "Sequence[str] | Mapping[str, str | SentenceTransformer]",
    scores: Run,
    *,
    split: str | None = None,
    queries: int = 100,
    docs_per_query: int = 30,
    reading: Reading = DEFAULT,
    seed: int = 0,
) -> StudentRanking:
    """Measure students as they are, untrained, on a sample of the teacher's lists.

    A candidate is a folder or a hub id; `MODEL[0,2,5]` keeps these layers of one. In a mapping,
    names may stand for models too, such as those that `students.transforms` makes. The sample is
    `queries` queries drawn with `seed`, each with at most `docs_per_query` documents, evenly
    spaced from the teacher's best to its last. With `split`, nDCG is measured against its labels
    as well. The table is sorted by RULE.

    It shows which student starts closest to the teacher, and at what cost; that it also ends
    closest is likely, not certain.

    Raises:
        ConfigError: no candidates, a name twice, a model that cannot be loaded or cut, a number
            below its minimum, or no such split.
        DataError: no list has two documents, or texts of the scores are not in the collection.

    """
    named = dict(candidates) if isinstance(candidates, Mapping) else {c: c for c in candidates}
    if not named or len(named) < len(candidates):
        raise ConfigError(f"give at least one candidate, each once, not {list(candidates)}.")
    if queries < 1 or docs_per_query < 2:
        raise ConfigError(
            "a sample needs at least 1 query with 2 documents, but got "
            f"queries={queries}, docs_per_query={docs_per_query}."
        )
    sample = _sample(collection, scores, queries, docs_per_query, seed)
    qrels = collection.qrels(split) if split else {}
    rows = []
    for name, candidate in named.items():
        model = _load(candidate) if isinstance(candidate, str) else candidate
        encoder = DenseEncoder(model, **reading.options())
        rows.append(_measure(name, encoder, sample, qrels))
    rows.sort(key=_sort_key)
    return StudentRanking(rows, len(sample.lists), _mean_ndcg(sample.lists, qrels))


def parse_candidate(text: str) -> tuple[str, tuple[int, ...] | None]:
    """Return the model and the layers of `MODEL` or `MODEL[0,2,5]`.

    Raises:
        ConfigError: the brackets do not hold layers.

    """
    match = re.fullmatch(r"(.+)\[(.*)\]", text)
    return (match[1], parse_layers(match[2])) if match else (text, None)


@dataclass(frozen=True, slots=True)
class _Sample:
    """Lists of the teacher, and the texts in them."""

    lists: Mapping[str, Mapping[str, float]]
    query_texts: Sequence[str]
    doc_ids: Sequence[str]
    doc_texts: Sequence[str]


def _sample(
    collection: "Collection", scores: Run, queries: int, docs_per_query: int, seed: int
) -> _Sample:
    long = [q for q, n in zip(scores.query_ids, scores.list_sizes, strict=True) if n > 1]
    if not long:
        raise DataError(
            "no query of these scores has two documents, so there is no order to agree with. "
            "Score lists of candidates."
        )
    drawn = np.random.default_rng(seed).choice(len(long), min(queries, len(long)), replace=False)
    lists = {}
    for query, docs, values in scores.select(long[index] for index in sorted(drawn)).lists():
        ranks = np.linspace(0, len(docs) - 1, min(len(docs), docs_per_query)).round().astype(int)
        lists[query] = {docs[rank]: float(values[rank]) for rank in ranks}
    doc_ids = list(dict.fromkeys(doc for docs in lists.values() for doc in docs))
    return _Sample(
        lists,
        collection.queries.full_texts(collection.queries.rows(list(lists))),
        doc_ids,
        collection.docs.full_texts(collection.docs.rows(doc_ids)),
    )


def _sort_key(row: RankedStudent) -> tuple[float, float, str]:
    """Return what RULE sorts by; a student that agrees in no list comes last."""
    return (np.inf if row.agreement is None else -row.agreement, -row.texts_per_second, row.name)


def _load(text: str) -> "SentenceTransformer":
    name, layers = parse_candidate(text)
    model = load_bi_encoder(name, pick_device())
    return model if layers is None else keep_layers(model, layers)


def _measure(name: str, encoder: DenseEncoder, sample: _Sample, qrels: "Qrels") -> RankedStudent:
    encoder.encode_docs(sample.doc_texts[:4])
    started = time.perf_counter()
    docs = encoder.encode_docs(sample.doc_texts)
    seconds = time.perf_counter() - started
    queries = encoder.encode_queries(sample.query_texts)
    rows = {doc: row for row, doc in enumerate(sample.doc_ids)}
    lists: dict[str, dict[str, float]] = {}
    for (query, teacher_scores), vector in zip(sample.lists.items(), queries, strict=True):
        scores = docs[[rows[doc] for doc in teacher_scores]] @ vector
        lists[query] = dict(zip(teacher_scores, scores.tolist(), strict=True))
    taus = [tau for query in lists if (tau := _tau(sample.lists[query], lists[query])) is not None]
    weights = encoder.model.state_dict().values()
    return RankedStudent(
        name=name,
        agreement=float(np.mean(taus)) if taus else None,
        lists=len(taus),
        ndcg=_mean_ndcg(lists, qrels),
        texts_per_second=len(set(sample.doc_texts)) / seconds,
        megabytes=sum(weight.numel() * weight.element_size() for weight in weights) / 1e6,
        dimension=encoder.dimension,
    )


def _tau(teacher: Mapping[str, float], student: Mapping[str, float]) -> float | None:
    """Return Kendall's tau-b of two lists of the same documents; None if one is all ties."""
    from scipy.stats import kendalltau

    if min(len(set(scores.values())) for scores in (teacher, student)) < 2:
        return None
    return float(kendalltau(list(teacher.values()), list(student.values())).statistic)


def _mean_ndcg(lists: Mapping[str, Mapping[str, float]], qrels: "Qrels") -> float | None:
    """Return the mean nDCG@10 over the queries with a relevant document; None: there are none."""
    judged = {query: qrels.get(query, {}) for query in lists}
    relevant = {query: docs for query, docs in judged.items() if max(docs.values(), default=0) > 0}
    values = evaluate(relevant, Run.from_dict(lists), [NDCG])[str(NDCG)]
    return float(np.mean(list(values.values()))) if values else None


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
